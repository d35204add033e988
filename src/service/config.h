#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "codec/request.h"

namespace tensorforge::service {

/// What an operator may set about commands and queries. The defaults are those of the configuration file.
struct Config {
  std::uint64_t reserve_bytes{512ULL << 20U};  ///< less free disk than this refuses changes
  std::uint64_t touch_granularity_ms{1'000};   ///< a touch nearer than this to the recorded one makes no event

  // Of `pool stats`: should_defragment().
  double fragmentation_threshold{0.5};
  std::uint64_t defragment_min_block_bytes{64ULL << 20U};

  // Of `checkpoint chain`: estimate_restore_time().
  std::uint64_t restore_base_ms{1'000};
  std::uint64_t restore_per_checkpoint_ms{100};
  double restore_bytes_per_ms{1'000'000};

  std::uint64_t checkpoint_interval_steps{1'000};  ///< of `checkpoint due` without an interval

  // Bounds of one command; not configuration keys, smaller in tests.
  std::size_t max_changes{1'000};
  std::size_t max_evictions{1'000};
  std::size_t max_reply_bytes{codec::kMaxFrameBytes / 2};
};

/// The two clocks, as read together.
struct Now {
  std::uint64_t wall_ms{};  ///< CLOCK_REALTIME, since the Unix epoch
  std::uint64_t boot_ms{};  ///< CLOCK_BOOTTIME: never steps
};

}  // namespace tensorforge::service
