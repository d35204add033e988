#include "server/system.h"

#include <cstdlib>
#include <ctime>

#include <openssl/rand.h>

namespace tensorforge::server {
namespace {

std::uint64_t read_ms(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  // A wall clock before 1970 counts as 1970.
  if (time.tv_sec < 0) return 0;
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000 + static_cast<std::uint64_t>(time.tv_nsec) / 1'000'000;
}

}  // namespace

service::Now read_clocks() { return {read_ms(CLOCK_REALTIME), read_ms(CLOCK_BOOTTIME)}; }

void fill_random(std::span<std::uint8_t> bytes) {
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) std::abort();
}

std::string_view version() { return TENSORFORGE_VERSION; }

}  // namespace tensorforge::server
