#include "tests/support/programs.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/files.h"

namespace tensorforge::test {
namespace {

void check(int error, const std::string& what) {
  if (error != 0) throw std::system_error(error, std::generic_category(), what);
}

class FileActions {
 public:
  FileActions() { check(posix_spawn_file_actions_init(&actions_), "posix_spawn_file_actions_init"); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;

  void open(int fd, const std::filesystem::path& path, int flags) {
    check(posix_spawn_file_actions_addopen(&actions_, fd, path.c_str(), flags, 0600), path.string());
  }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
};

pid_t spawn(const std::vector<std::string>& command, const FileActions& actions) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = -1;
  check(posix_spawn(&pid, arguments[0], actions.get(), nullptr, arguments.data(), environ), command[0]);
  return pid;
}

int wait_for_exit(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) check(errno, "waitpid");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

Ran run_program(const std::vector<std::string>& command, const std::string& input) {
  const TemporaryDirectory directory;
  const std::filesystem::path in = directory.path() / "in", out = directory.path() / "out",
                              err = directory.path() / "err";
  FileActions actions;
  std::ofstream(in, std::ios::binary) << input;
  actions.open(STDIN_FILENO, in, O_RDONLY);
  actions.open(STDOUT_FILENO, out, O_WRONLY | O_CREAT);
  actions.open(STDERR_FILENO, err, O_WRONLY | O_CREAT);
  const int exit_code = wait_for_exit(spawn(command, actions));
  return {exit_code, read_bytes(out), read_bytes(err)};
}

}  // namespace tensorforge::test
