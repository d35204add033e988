#include <cstdlib>
#include <optional>

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "crashtest/tester.h"
#include "storage/data_directory.h"

int main(int argc, char** argv) {
  if (const std::optional<int> code = tensorforge::storage::run_log_check_if_asked(argc, argv)) return *code;
  setenv("TENSORFORGED", TENSORFORGED_PATH, 1);
  if (const std::optional<int> code = tensorforge::crashtest::run_crash_worker_if_asked(argc, argv)) return *code;
  spdlog::set_level(spdlog::level::off);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
