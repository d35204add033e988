#include <cstdio>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "storage/data_directory.h"
#include "tests/storage/log_fixture.h"
#include "tests/storage/read_trap.h"

namespace {

/// Appends until it is killed, and writes each sequence that was acknowledged to standard output, as a client would
/// have seen it.
int write_until_killed(const char* data_dir) {
  spdlog::set_default_logger(spdlog::stderr_logger_st("writer"));
  tensorforge::storage::OpenOptions options;
  options.data_dir = data_dir;
  tensorforge::storage::Served served(options);
  for (std::size_t size = 1;; size = size % 37 + 1) {
    const auto appended = served.append(tensorforge::storage::make_group(served.end(), size, 200));
    if (!appended.ok()) return 3;
    const std::uint64_t sequence = *appended;
    if (write(STDOUT_FILENO, &sequence, sizeof sequence) != sizeof sequence) return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto trapped = tensorforge::storage::ReadTrap::of_environment();
  if (const std::optional<int> code = tensorforge::storage::run_log_check_if_asked(argc, argv, trapped)) return *code;
  if (argc == 3 && std::strcmp(argv[1], "--write-until-killed") == 0) return write_until_killed(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
