#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "platform/result.h"

namespace tensorforge::crashtest {

/// Where the program `tensorforged` is if nobody says so: what the variable TENSORFORGED of the environment says, or
/// else beside this program.
std::string service_path();

/// A process of `tensorforged`.
///
/// Threads: belongs to one.
class ServiceProcess {
 public:
  /// Runs `program`; what it says in standard error goes behind what the file `errors_path` holds. `environment` is
  /// "NAME=value" each, and goes before what this process has. kInternal: it cannot be started.
  static Result<ServiceProcess> start(const std::string& program, const std::vector<std::string>& arguments,
                                      const std::string& errors_path, const std::vector<std::string>& environment = {});
  ServiceProcess(ServiceProcess&& other) noexcept;
  ServiceProcess& operator=(ServiceProcess&&) = delete;
  /// Kills it if it runs.
  ~ServiceProcess();

  /// From "ready on HOST:PORT, N events, recovered in T ms".
  struct Ready {
    std::string address;
    std::uint16_t port{};
    std::uint64_t events{};
  };
  /// nullopt: it ended before it served, or does not in that time.
  std::optional<Ready> wait_until_ready(std::chrono::milliseconds);
  pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// The exit code, or minus the signal that ended it; nullopt: it runs on.
  std::optional<int> wait_for_end(std::chrono::milliseconds);
  /// What it wrote to standard output; after its end.
  std::string output();

 private:
  ServiceProcess(pid_t pid, int output) : pid_(pid), output_(output) {}
  bool read_some();
  pid_t pid_;
  int output_;  ///< its standard output, to be read
  std::string text_;
  std::optional<int> end_;
};

/// From now on SIGTERM ends this process and the service that it started last, if that still runs: nobody else would.
void end_with_service_at_sigterm();

}  // namespace tensorforge::crashtest
