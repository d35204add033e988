#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gpu_memory/gpu_memory.h"
#include "tests/gpu_memory/naive_pool.h"

namespace tensorforge::gpu_memory {
namespace {

using enum BlockStatus;
using testing::HasSubstr;

/// How one random history looks.
struct Shape {
  const char* name;
  std::size_t total, largest_request;
  unsigned alignments;  ///< 1, 2, 4, ... so many powers of two
  int priorities;
  unsigned pinned_percent;
  std::uint64_t time_step;  ///< 0: every time is the same, and ties decide
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class PoolProperty : public testing::TestWithParam<Shape> {};

/// Runs one random history against both pools.
class History {
 public:
  History(const Shape& shape, std::uint32_t seed)
      : shape_(shape), random_(seed), pool_({"gpu0", shape.total, 0, {}}), naive_(shape.total) {}

  void step() {
    now_ += below(shape_.time_step + 1);
    const std::string id = any_id();
    switch (below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
        return allocate();
      case 6:
      case 7:
        return same(pool_.free(id), naive_.free(id));
      case 8:
      case 9:
      case 10:
        return same(pool_.mark_cached(id), naive_.change(id, {Allocated}, Cached));
      case 11:
        return same(pool_.pin(id), naive_.change(id, {Allocated, Cached}, Pinned));
      case 12:
        return same(pool_.unpin(id), naive_.change(id, {Pinned}, Allocated));
      case 13:
        return same(pool_.touch(id, now_), naive_.touch(id, now_));
      case 14: {
        const std::size_t needed = below(shape_.largest_request);
        EXPECT_EQ(pool_.evict(needed), naive_.evict(needed));
        return;
      }
      default:
        return defragment();
    }
  }

  void compare() {
    ASSERT_EQ(pool_.blocks(), naive_.blocks());
    ASSERT_EQ(pool_.stats(), naive_.stats());
    for (const MemoryBlock& block : naive_.blocks()) ASSERT_EQ(pool_.get_block(block.block_id), block);
  }

 private:
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  std::string any_id() {
    if (below(20) == 0) return "b-00000000-999999";
    const auto& blocks = naive_.blocks();
    return blocks.empty() ? "free-0" : blocks[below(blocks.size())].block_id;
  }

  void allocate() {
    AllocationRequest request;
    request.tensor_id = "tensor" + std::to_string(below(5));
    request.size = 1 + below(below(4) == 0 ? shape_.largest_request : shape_.largest_request / 4 + 1);
    request.alignment = std::size_t{1} << below(shape_.alignments);
    request.pinned = below(100) < shape_.pinned_percent;
    request.priority = static_cast<std::int32_t>(below(static_cast<std::size_t>(shape_.priorities))) - 1;
    const AllocationResult result = pool_.allocate(request, now_);
    const NaivePool::Allocation want = naive_.allocate(request, now_);
    ASSERT_EQ(result.success, want.refusal.empty()) << result.error.value_or(want.refusal);
    if (!result.success) {
      ASSERT_THAT(result.error.value(), HasSubstr(want.refusal));
      ASSERT_EQ(result.block_id, std::nullopt);
      return;
    }
    ASSERT_EQ(result.block_id, want.block_id);
    ASSERT_EQ(result.offset, want.offset);
    ASSERT_EQ(result.actual_size, want.actual_size);
    const auto of_tensor = pool_.blocks_for_tensor(request.tensor_id);
    std::vector<MemoryBlock> want_of_tensor;
    for (const MemoryBlock& block : naive_.blocks()) {
      if (block.tensor_id == request.tensor_id) want_of_tensor.push_back(block);
    }
    ASSERT_EQ(of_tensor, want_of_tensor);
  }

  void defragment() {
    const std::vector<Move> plan = pool_.plan_defragment();
    const std::vector<MemoryBlock> before = naive_.blocks();
    ASSERT_EQ(plan, naive_.defragment());
    check_copies(before, plan);
    ASSERT_EQ(pool_.defragment(), plan.size());
    ASSERT_EQ(pool_.defragment(), 0U);
  }

  /// Copies real bytes in the order of the plan, and looks for each block's own at its new place.
  void check_copies(const std::vector<MemoryBlock>& before, const std::vector<Move>& plan) {
    std::vector<std::uint32_t> memory(shape_.total);
    std::uint32_t mark = 0;
    for (const MemoryBlock& block : before) {
      ++mark;
      if (block.status == Free) continue;
      std::fill_n(memory.begin() + static_cast<std::ptrdiff_t>(block.offset), block.size, mark);
    }
    for (const Move& move : plan) {
      std::memmove(&memory[move.to], &memory[move.from], move.size * sizeof memory[0]);
    }
    mark = 0;
    for (const MemoryBlock& block : before) {
      ++mark;
      if (block.status == Free) continue;
      const auto moved =
          std::find_if(plan.begin(), plan.end(), [&](const Move& m) { return m.block_id == block.block_id; });
      const std::size_t offset = moved == plan.end() ? block.offset : moved->to;
      for (std::size_t i = 0; i < block.size; ++i) ASSERT_EQ(memory[offset + i], mark) << block.block_id;
    }
  }

  static void same(const absl::Status& status, const std::string& want) {
    EXPECT_EQ(absl::StatusCodeToString(status.code()), want) << std::string(status.message());
  }

  Shape shape_;
  std::mt19937 random_;
  MemoryPool pool_;
  NaivePool naive_;
  std::uint64_t now_{};
};

TEST_P(PoolProperty, AgreesWithTheNaiveModelAfterEveryStep) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << GetParam().name << ", seed " << seed);
    History history(GetParam(), seed);
    for (int step = 0; step < 250; ++step) {
      history.step();
      if (HasFatalFailure() || HasNonfatalFailure()) return;
      history.compare();
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PoolProperty,
                         testing::Values(Shape{"roomy", 4096, 600, 9, 3, 20, 3}, Shape{"tight", 512, 300, 8, 3, 5, 2},
                                         Shape{"same_time", 600, 200, 5, 4, 5, 0},
                                         Shape{"odd_total", 997, 400, 10, 2, 10, 1},
                                         Shape{"bytes", 64, 24, 4, 3, 10, 1}, Shape{"unaligned", 1000, 250, 1, 5, 5, 2},
                                         Shape{"many_blocks", 2048, 40, 6, 6, 3, 5},
                                         Shape{"one_byte", 1, 2, 2, 2, 30, 1}, Shape{"nothing", 0, 4, 2, 2, 30, 1}),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace tensorforge::gpu_memory
