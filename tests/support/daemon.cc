#include "tests/support/daemon.h"

#include <array>
#include <csignal>
#include <sstream>
#include <stdexcept>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace tensorforge::test {
namespace {

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& string : strings) result.push_back(string.data());
  result.push_back(nullptr);
  return result;
}

std::optional<Daemon::Ready> parse_ready(const std::string& output) {
  constexpr std::string_view kStart = "ready on ";
  const std::size_t begin = output.find(kStart);
  if (begin == std::string::npos || output.find('\n', begin) == std::string::npos) return std::nullopt;
  std::istringstream line(output.substr(begin + kStart.size()));
  Daemon::Ready ready;
  std::getline(line, ready.address, ',');
  line >> ready.events;
  ready.port = static_cast<std::uint16_t>(std::stoul(ready.address.substr(ready.address.rfind(':') + 1)));
  return ready;
}

}  // namespace

Daemon::Daemon(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, Wait wait) {
  std::vector<std::string> words{TENSORFORGED_PATH};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = environment;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);

  std::array<int, 2> pipe_ends{};
  if (pipe2(pipe_ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  const std::string errors_path = (scratch_.path() / "stderr").string();
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int error =
      posix_spawn(&pid_, TENSORFORGED_PATH, &actions, nullptr, pointers(words).data(), pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  output_ = pipe_ends[0];
  if (error != 0) throw std::runtime_error("cannot run " TENSORFORGED_PATH);
  while (wait == Wait::kUntilReady && !ready_ && read_output()) ready_ = parse_ready(output_text_);
}

Daemon::~Daemon() {
  if (!exit_code_) kill();
  close(output_);
}

bool Daemon::read_output() {
  std::array<char, 4096> buffer{};
  const ssize_t size = read(output_, buffer.data(), buffer.size());
  if (size <= 0) return false;
  output_text_.append(buffer.data(), static_cast<std::size_t>(size));
  return true;
}

void Daemon::signal(int number) { ::kill(pid_, number); }

int Daemon::wait() {
  if (!exit_code_) {
    int status = 0;
    waitpid(pid_, &status, 0);
    exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  return *exit_code_;
}

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
  while (read_output()) {
  }
  return output_text_;
}

std::string Daemon::errors() const { return read_bytes(scratch_.path() / "stderr"); }

}  // namespace tensorforge::test
