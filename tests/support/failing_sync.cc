// Preloaded into a process, it lets one sync of a file fail as a disk would: once, and what comes after it succeeds.
//
//   FAILING_SYNC_FILE     what the path of the file ends with: ".log", "HEAD"
//   FAILING_SYNC_TRIGGER  the sync after this file was made fails
//   FAILING_SYNC_REPORT   gets a line for that sync, and for each one of that open file from then on
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string path_of(int file) {
  std::string path(4096, '\0');
  const ssize_t size = readlink(("/proc/self/fd/" + std::to_string(file)).c_str(), path.data(), path.size());
  path.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return path;
}

void report(const std::string& line) {
  const int file = open(variable("FAILING_SYNC_REPORT").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  const ssize_t written = write(file, line.data(), line.size());
  static_cast<void>(written);  // the test misses the line
  close(file);
}

/// Whether this sync has to fail.
bool fails(int file) {
  static std::mutex mutex;
  static std::string failed;  // the path of the file whose sync did
  const std::string path = path_of(file);
  const std::lock_guard lock(mutex);
  if (!failed.empty()) {
    if (path == failed) report("synced again\n");
    return false;
  }
  if (!std::string_view(path).ends_with(variable("FAILING_SYNC_FILE"))) return false;
  if (access(variable("FAILING_SYNC_TRIGGER").c_str(), F_OK) != 0) return false;
  failed = path;
  report("failed\n");
  return true;
}

int sync_or_fail(const char* name, int file) {
  if (fails(file)) {
    errno = EIO;
    return -1;
  }
  return reinterpret_cast<int (*)(int)>(dlsym(RTLD_NEXT, name))(file);
}

}  // namespace

extern "C" int fsync(int file) { return sync_or_fail("fsync", file); }
extern "C" int fdatasync(int file) { return sync_or_fail("fdatasync", file); }
