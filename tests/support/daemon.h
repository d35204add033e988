#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "crashtest/service_process.h"
#include "tests/support/files.h"

namespace tensorforge::test {

/// A process of the real `tensorforged`, for as long as this is there.
class Daemon {
 public:
  enum class Wait { kUntilReady, kNot };
  /// Runs it with `arguments` (and `environment`, "NAME=value"), and returns when it is ready or has ended, or at once.
  explicit Daemon(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {},
                  Wait = Wait::kUntilReady);

  using Ready = crashtest::ServiceProcess::Ready;
  /// Set if it became ready.
  const std::optional<Ready>& ready() const { return ready_; }

  pid_t pid() const { return process_.pid(); }
  void signal(int number) { process_.signal(number); }
  /// Waits for its end: its exit code, or minus the signal that ended it.
  int wait();
  int stop();
  void kill();

  /// All of standard output; after the end of the process.
  std::string output();
  /// All of standard error so far.
  std::string errors() const;

 private:
  std::string errors_path() const { return (scratch_.path() / "stderr").string(); }

  TemporaryDirectory scratch_;
  crashtest::ServiceProcess process_;
  std::optional<Ready> ready_;
};

}  // namespace tensorforge::test
