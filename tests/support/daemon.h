#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "tests/support/files.h"

namespace tensorforge::test {

/// A process of the real `tensorforged`.
class Daemon {
 public:
  enum class Wait { kUntilReady, kNot };
  /// Runs it with `arguments` (and `environment`, "NAME=value"), and returns when it is ready or has ended, or at once.
  explicit Daemon(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {},
                  Wait = Wait::kUntilReady);
  /// Kills it if it runs.
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// Set if it became ready: from "ready on HOST:PORT, N events, recovered in T ms".
  struct Ready {
    std::string address;
    std::uint16_t port{};
    std::uint64_t events{};
  };
  const std::optional<Ready>& ready() const { return ready_; }

  pid_t pid() const { return pid_; }
  void signal(int number);
  /// Waits for its end: its exit code, or minus the signal that ended it.
  int wait();
  int stop();
  void kill();

  /// All of standard output; after the end of the process.
  std::string output();
  /// All of standard error so far.
  std::string errors() const;

 private:
  bool read_output();  // one read; false at its end

  TemporaryDirectory scratch_;
  pid_t pid_{-1};
  int output_{-1};
  std::string output_text_;
  std::optional<Ready> ready_;
  std::optional<int> exit_code_;
};

}  // namespace tensorforge::test
