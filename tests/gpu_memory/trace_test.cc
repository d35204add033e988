#include <charconv>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "gpu_memory/gpu_memory.h"
#include "tests/gpu_memory/naive_pool.h"

namespace tensorforge::gpu_memory {
namespace {

struct TraceLine {
  bool allocates{};
  std::uint64_t id{};
  std::size_t bytes{};
  std::uint64_t time{};
};
struct Trace {
  std::vector<TraceLine> lines;
  std::size_t peak_live_bytes{};  ///< as its head says
};

template <class Number>
Number number(std::string_view text) {
  Number value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

Trace read_trace(const std::string& name) {
  Trace trace;
  std::ifstream in(std::string(TENSORFORGE_TEST_DATA) + "/traces/" + name);
  EXPECT_TRUE(in.is_open()) << name;
  constexpr std::string_view kPeak = "peak_live_bytes=";
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) {
      if (const auto at = line.find(kPeak); at != std::string::npos) {
        trace.peak_live_bytes = number<std::size_t>(std::string_view(line).substr(at + kPeak.size()));
      }
      continue;
    }
    std::vector<std::string_view> fields;
    for (std::string_view rest = line;; rest.remove_prefix(fields.back().size() + 1)) {
      fields.push_back(rest.substr(0, rest.find(',')));
      if (fields.back().size() == rest.size()) break;
    }
    EXPECT_EQ(fields.size(), 4U) << line;
    trace.lines.push_back({fields.at(0) == "a", number<std::uint64_t>(fields.at(1)), number<std::size_t>(fields.at(2)),
                           number<std::uint64_t>(fields.at(3))});
  }
  return trace;
}

void check_tiling(const MemoryPool& pool) {
  std::size_t end = 0;
  bool free_before = false;
  for (const MemoryBlock& block : pool.blocks()) {
    ASSERT_EQ(block.offset, end);
    const bool is_free = block.status == BlockStatus::Free;
    ASSERT_FALSE(is_free && free_before);
    free_before = is_free;
    end += block.size;
  }
  ASSERT_EQ(end, pool.stats().total_bytes);
}

class GpuMemoryTrace : public testing::TestWithParam<std::string> {
 protected:
  /// Replays the trace through a pool of `total` bytes and the naive one, caching instead of freeing every
  /// `cache_every`-th block (0: none).
  void replay(std::size_t total, std::uint64_t cache_every) {
    const Trace trace = read_trace(GetParam());
    ASSERT_GT(trace.lines.size(), 100U);
    MemoryPool pool({"gpu0", total, 0, {}});
    NaivePool naive(total);
    std::map<std::uint64_t, std::string> held;
    std::size_t line_number = 0;
    for (const TraceLine& line : trace.lines) {
      if (line.allocates) {
        const AllocationRequest request{"buffer" + std::to_string(line.id), line.bytes};
        const AllocationResult result = pool.allocate(request, line.time);
        const NaivePool::Allocation want = naive.allocate(request, line.time);
        ASSERT_EQ(result.block_id.value_or(""), want.block_id) << result.error.value_or("");
        ASSERT_EQ(result.offset.value_or(0), want.offset);
        if (result.success) held[line.id] = *result.block_id;
      } else if (const auto found = held.find(line.id); found != held.end()) {
        if (cache_every != 0 && line.id % cache_every == 0) {
          ASSERT_TRUE(pool.mark_cached(found->second).ok());
          naive.change(found->second, {BlockStatus::Allocated}, BlockStatus::Cached);
        } else {
          ASSERT_TRUE(pool.free(found->second).ok());
          naive.free(found->second);
        }
        held.erase(found);
      }
      // Each step on the short traces; now and then on the long one, where comparing takes most of the time.
      if (trace.lines.size() < 1000 || ++line_number % 100 == 0) {
        ASSERT_EQ(pool.blocks(), naive.blocks());
        ASSERT_EQ(pool.stats(), naive.stats());
        check_tiling(pool);
      }
    }
    ASSERT_EQ(pool.blocks(), naive.blocks());
  }
};

TEST_P(GpuMemoryTrace, HasThePeakThatItsHeadSays) {
  const Trace trace = read_trace(GetParam());
  MemoryPool pool({"gpu0", 4 * trace.peak_live_bytes, 0, {}});
  std::map<std::uint64_t, std::string> held;
  std::size_t peak = 0;
  for (const TraceLine& line : trace.lines) {
    if (line.allocates) {
      const AllocationResult result = pool.allocate({"buffer", line.bytes}, line.time);
      ASSERT_TRUE(result.success) << result.error.value_or("");
      held[line.id] = *result.block_id;
    } else {
      ASSERT_TRUE(pool.free(held.at(line.id)).ok());
      held.erase(line.id);
    }
    peak = std::max(peak, pool.stats().allocated_bytes);
  }
  EXPECT_EQ(peak, trace.peak_live_bytes);
  EXPECT_EQ(pool.stats().allocation_count, held.size());
}

TEST_P(GpuMemoryTrace, PlacesLikeTheNaiveModelInATightPool) { replay(read_trace(GetParam()).peak_live_bytes, 0); }

TEST_P(GpuMemoryTrace, EvictsLikeTheNaiveModelWhenBuffersAreCached) {
  replay(read_trace(GetParam()).peak_live_bytes, 2);
}

INSTANTIATE_TEST_SUITE_P(Files, GpuMemoryTrace,
                         testing::Values("minimalloc_A.csv", "minimalloc_B.csv", "minimalloc_C.csv", "minimalloc_D.csv",
                                         "minimalloc_E.csv", "kv_serving.csv"),
                         [](const auto& instance) { return instance.param.substr(0, instance.param.find('.')); });

}  // namespace
}  // namespace tensorforge::gpu_memory
