#include "tests/support/daemon.h"

#include <chrono>
#include <csignal>
#include <stdexcept>
#include <utility>

namespace tensorforge::test {
namespace {

using crashtest::ServiceProcess;

/// The time limit of a test is its own.
constexpr std::chrono::hours kPatience{24};

ServiceProcess start(const std::vector<std::string>& arguments, const std::string& errors_path,
                     const std::vector<std::string>& environment) {
  Result<ServiceProcess> process = ServiceProcess::start(TENSORFORGED_PATH, arguments, errors_path, environment);
  if (!process.ok()) throw std::runtime_error(process.status().ToString());
  return *std::move(process);
}

}  // namespace

Daemon::Daemon(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, Wait wait)
    : process_(start(arguments, errors_path(), environment)) {
  if (wait == Wait::kUntilReady) ready_ = process_.wait_until_ready(kPatience);
}

int Daemon::wait() { return process_.wait_for_end(kPatience).value(); }

int Daemon::stop() {
  signal(SIGTERM);
  return wait();
}

void Daemon::kill() {
  signal(SIGKILL);
  wait();
}

std::string Daemon::output() {
  wait();
  return process_.output();
}

std::string Daemon::errors() const { return read_bytes(scratch_.path() / "stderr"); }

}  // namespace tensorforge::test
