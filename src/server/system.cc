#include "server/system.h"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include <openssl/rand.h>
#include <sys/resource.h>
#include <unistd.h>

namespace tensorforge::server {
namespace {

std::uint64_t read_ms(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  // A wall clock before 1970 counts as 1970.
  if (time.tv_sec < 0) return 0;
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000 + static_cast<std::uint64_t>(time.tv_nsec) / 1'000'000;
}

std::atomic<bool> stop_was_asked = false;
static_assert(decltype(stop_was_asked)::is_always_lock_free);  // so a signal handler may set it

}  // namespace

service::Now read_clocks() { return {read_ms(CLOCK_REALTIME), read_ms(CLOCK_BOOTTIME)}; }

void fill_random(std::span<std::uint8_t> bytes) {
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) std::abort();
}

void hold_signals() {
  struct sigaction hold {};
  hold.sa_handler = [](int) { stop_was_asked = true; };  // without SA_RESTART: it wakes who waits
  ::sigaction(SIGTERM, &hold, nullptr);
  ::sigaction(SIGINT, &hold, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool stop_asked() { return stop_was_asked; }

void work_in_background() {
  // Behind all others, and not so far that it would never come to an end beside a service that is always busy.
  constexpr int kNiceness = 10;
  // On Linux a thread has a niceness of its own. Where it cannot be had, the work is done all the same.
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNiceness));
}

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");  // in pages: the whole, what is resident, ...
  std::uint64_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::string_view version() { return TENSORFORGE_VERSION; }

}  // namespace tensorforge::server
