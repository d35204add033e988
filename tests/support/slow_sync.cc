// Preloaded into a process, it makes every sync of a file take SLOW_SYNC_MS milliseconds more.
#include <cstdlib>

#include <dlfcn.h>
#include <unistd.h>

namespace {

int sync_slowly(const char* name, int file) {
  const char* milliseconds = std::getenv("SLOW_SYNC_MS");
  if (milliseconds != nullptr) usleep(static_cast<useconds_t>(std::strtoul(milliseconds, nullptr, 10)) * 1'000);
  return reinterpret_cast<int (*)(int)>(dlsym(RTLD_NEXT, name))(file);
}

}  // namespace

extern "C" int fsync(int file) { return sync_slowly("fsync", file); }
extern "C" int fdatasync(int file) { return sync_slowly("fdatasync", file); }
