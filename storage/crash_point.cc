#include "storage/crash_point.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <functional>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

// RocksDB exports this class where it was built with asserts, as Debian's is, but installs no header for it. Weak, so
// that one without it can be linked too: the functions are then null. Only functions that are not virtual are declared,
// and objects only come from the library, so nothing here rests on the layout of the class.
namespace rocksdb {
class SyncPoint {
 public:
  [[gnu::weak]] static SyncPoint* GetInstance();
  [[gnu::weak]] void SetCallBack(const std::string& point, const std::function<void(void*)>& callback);
  [[gnu::weak]] void EnableProcessing();
};
}  // namespace rocksdb

namespace tensorforge::storage {
namespace {

constexpr std::string_view kNames[] = {
    "none",
    "locked",
    "head-written",
    "head-renamed",
    "head-durable",
    "database-created",
    "database-durable",
    "database-set-aside",
    "verified",
    "opened",
    "tail-to-anchor",
    "tail-anchored",
    "replayed",
    "life-to-start",
    "serving",
    "decided",
    "applied",
    "group-taken",
    "group-to-seal",
    "group-sealed",
    "group-synced",
    "group-reported",
    "head-to-write",
    "head-slot-written",
    "head-slot-synced",
    "durable-reported",
    "reply-to-send",
    "reply-sent",
    "snapshot-written",
    "snapshot-synced",
    "snapshot-renamed",
    "snapshot-durable",
    "stop-begun",
    "stop-drained",
    "stop-closed",
};
constexpr std::size_t kCount = std::size(kNames) - 1;
static_assert(kCount == static_cast<std::size_t>(CrashPoint::kStopClosed), "each point has a name");
constexpr auto kAll = [] {
  std::array<CrashPoint, kCount> all{};
  for (std::size_t i = 0; i < kCount; ++i) all[i] = static_cast<CrashPoint>(i + 1);
  return all;
}();

constexpr std::string_view kRocksDbPrefix = "rocksdb/";

std::atomic<std::uint64_t> passes_left{};

}  // namespace

std::string_view to_string(CrashPoint point) { return kNames[static_cast<std::size_t>(point)]; }
std::span<const CrashPoint> crash_points() { return kAll; }

void pass_armed_crash_point() {
  if (passes_left.fetch_sub(1) == 1) ::kill(::getpid(), SIGKILL);
}

bool has_sync_points() { return &rocksdb::SyncPoint::GetInstance != nullptr; }

absl::Status arm_crash_point(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(fmt::format("{}: \"{}\" {}", kCrashPointVariable, text, why));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return refuse("is not NAME:N");
  const std::string_view name = text.substr(0, colon), number = text.substr(colon + 1);
  std::uint64_t passes = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), passes);
  if (error != std::errc() || end != number.data() + number.size() || passes == 0) {
    return refuse("does not count from 1 on");
  }
  passes_left = passes;
  if (name.starts_with(kRocksDbPrefix)) {
    if (!has_sync_points()) return absl::UnimplementedError("this RocksDB was built without sync points");
    rocksdb::SyncPoint* points = rocksdb::SyncPoint::GetInstance();
    points->SetCallBack(std::string(name.substr(kRocksDbPrefix.size())), [](void*) { pass_armed_crash_point(); });
    points->EnableProcessing();
    return absl::OkStatus();
  }
  const auto found = std::find_if(kAll.begin(), kAll.end(), [&](CrashPoint point) { return to_string(point) == name; });
  if (found == kAll.end()) return refuse("names no crash point");
  armed_crash_point = *found;
  return absl::OkStatus();
}

}  // namespace tensorforge::storage
