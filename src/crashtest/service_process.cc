#include "crashtest/service_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tensorforge::crashtest {
namespace {

using Clock = std::chrono::steady_clock;

/// The service that was started last; 0: it has ended. A handler of signals reads it.
volatile std::sig_atomic_t running = 0;

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (std::string& string : strings) result.push_back(string.data());
  result.push_back(nullptr);
  return result;
}

std::chrono::milliseconds left_until(Clock::time_point deadline) {
  return std::max(std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()),
                  std::chrono::milliseconds(0));
}

/// nullopt: it does not say that it is ready, or not to the end of the line.
std::optional<ServiceProcess::Ready> parse_ready(const std::string& output) {
  constexpr std::string_view kStart = "ready on ";
  const std::size_t begin = output.find(kStart);
  if (begin == std::string::npos || output.find('\n', begin) == std::string::npos) return std::nullopt;
  std::istringstream line(output.substr(begin + kStart.size()));
  ServiceProcess::Ready ready;
  std::getline(line, ready.address, ',');
  line >> ready.events;
  ready.port = static_cast<std::uint16_t>(std::strtoul(&ready.address[ready.address.rfind(':') + 1], nullptr, 10));
  return ready;
}

}  // namespace

void end_with_service_at_sigterm() {
  ::signal(SIGTERM, [](int) {
    if (running > 0) ::kill(running, SIGKILL);
    ::_exit(1);
  });
}

std::string service_path() {
  if (const char* path = std::getenv("TENSORFORGED")) return path;
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "tensorforged").string();
}

Result<ServiceProcess> ServiceProcess::start(const std::string& program, const std::vector<std::string>& arguments,
                                             const std::string& errors_path,
                                             const std::vector<std::string>& environment) {
  std::vector<std::string> words{program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = environment;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);

  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return absl::InternalError("no pipe can be made");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, words[0].c_str(), &actions, nullptr, pointers(words).data(), pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error == 0) {
    running = pid;
    return ServiceProcess(pid, ends[0]);
  }
  close(ends[0]);
  return absl::InternalError(fmt::format("cannot run {}: {}", program, std::generic_category().message(error)));
}

ServiceProcess::ServiceProcess(ServiceProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      output_(std::exchange(other.output_, -1)),
      text_(std::move(other.text_)),
      end_(other.end_) {}

ServiceProcess::~ServiceProcess() {
  if (pid_ < 0) return;
  if (!end_) {
    signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
    running = 0;
  }
  close(output_);
}

bool ServiceProcess::read_some() {
  std::array<char, 4'096> buffer{};
  const ssize_t size = read(output_, buffer.data(), buffer.size());
  if (size <= 0) return false;
  text_.append(buffer.data(), static_cast<std::size_t>(size));
  return true;
}

std::optional<ServiceProcess::Ready> ServiceProcess::wait_until_ready(std::chrono::milliseconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  std::optional<Ready> ready;
  while (!(ready = parse_ready(text_))) {
    pollfd readable{output_, POLLIN, 0};
    if (poll(&readable, 1, static_cast<int>(left_until(deadline).count())) <= 0) return std::nullopt;
    if (!read_some()) return std::nullopt;
  }
  return ready;
}

std::string ServiceProcess::output() {
  while (read_some()) {
  }
  return text_;
}

void ServiceProcess::signal(int number) const {
  if (!end_) ::kill(pid_, number);
}

std::optional<int> ServiceProcess::wait_for_end(std::chrono::milliseconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  while (!end_) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      running = 0;
      end_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    } else if (Clock::now() >= deadline) {
      break;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  return end_;
}

}  // namespace tensorforge::crashtest
