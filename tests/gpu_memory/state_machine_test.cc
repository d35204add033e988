#include "gpu_memory/state_machine.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::gpu_memory {
namespace {

using enum BlockStatus;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

class GpuMemoryStateMachine : public testing::Test {
 protected:
  GpuMemoryStateMachine() { given({PoolCreated{{"gpu0", 1000, 1593, {8, 6}}}}); }

  void given(const Events& events) {
    for (const Event& event : events) apply(state_, event);
  }
  /// Decides and applies; the events.
  Events run(const Command& command) {
    const Result<Events> events = decide(state_, command, context_);
    EXPECT_TRUE(events.ok()) << std::string(events.status().message());
    if (!events.ok()) return {};
    given(*events);
    return *events;
  }
  std::string place(std::size_t size, std::int32_t priority = 0) {
    ++context_.now;
    const Events events = run(Allocate{"gpu0", {"t", size, 1, false, priority}});
    return format_entity_id(kBlockIdPrefix, std::get<BlockAllocated>(events.at(0)).block);
  }
  std::string place_cached(std::size_t size, std::int32_t priority = 0) {
    std::string id = place(size, priority);
    run(CacheBlock{"gpu0", id});
    return id;
  }
  absl::Status refusal(const Command& command) { return decide(state_, command, context_).status(); }
  std::vector<MemoryBlock> blocks() const { return state_.blocks("gpu0", 0, kAll); }

  State state_;
  Context context_{1000, 0xABC, kAll, kAll, 0};
};

TEST_F(GpuMemoryStateMachine, RefusesWithTheCodeOfTheCause) {
  using enum absl::StatusCode;
  const std::string block = place(10);
  const struct {
    const char* name;
    Command command;
    absl::StatusCode want;
  } cases[] = {
      {"no device id", CreatePool{{"", 1, 0, {}}}, kInvalidArgument},
      {"device id with @", CreatePool{{"gpu@0", 1, 0, {}}}, kInvalidArgument},
      {"no memory", CreatePool{{"gpu1", 0, 0, {}}}, kInvalidArgument},
      {"known device", CreatePool{{"gpu0", 1, 0, {}}}, kAlreadyExists},
      {"known device without memory: arguments first", CreatePool{{"gpu0", 0, 0, {}}}, kInvalidArgument},
      {"unknown pool", Allocate{"gpu9", {"t", 1}}, kNotFound},
      {"bad request to an unknown pool: arguments first", Allocate{"gpu9", {"t", 0}}, kInvalidArgument},
      {"no tensor id", Allocate{"gpu0", {"", 1}}, kInvalidArgument},
      {"no size", Allocate{"gpu0", {"t", 0}}, kInvalidArgument},
      {"alignment 0", Allocate{"gpu0", {"t", 1, 0}}, kInvalidArgument},
      {"alignment 12", Allocate{"gpu0", {"t", 1, 12}}, kInvalidArgument},
      {"no multiple", Allocate{"gpu0", {"t", kAll, 16}}, kInvalidArgument},
      {"free in an unknown pool", FreeBlock{"gpu9", block}, kNotFound},
      {"free an unknown block", FreeBlock{"gpu0", "b-00000abc-99"}, kNotFound},
      {"a block of another incarnation", FreeBlock{"gpu0", "b-00000000-1"}, kNotFound},
      {"free a free place", FreeBlock{"gpu0", "free-10"}, kFailedPrecondition},
      {"free a free place in an unknown pool", FreeBlock{"gpu9", "free-10"}, kNotFound},
      {"unpin what is not pinned", UnpinBlock{"gpu0", block}, kFailedPrecondition},
      {"touch an unknown block", TouchBlock{"gpu0", "x"}, kNotFound},
      {"evict in an unknown pool", Evict{"gpu9", 1}, kNotFound},
      {"defragment an unknown pool", Defragment{"gpu9"}, kNotFound},
  };
  for (const auto& [name, command, want] : cases) EXPECT_EQ(refusal(command).code(), want) << name;
  EXPECT_EQ(std::string(refusal(CreatePool{{"gpu0", 1, 0, {}}}).message()),
            "pool \"gpu0\" exists already; a pool is created once");
}

TEST_F(GpuMemoryStateMachine, CountsBlocksOverAllPoolsAndNamesTheIncarnation) {
  run(CreatePool{{"gpu1", 1000, 0, {}}});
  EXPECT_EQ(place(10), "b-00000abc-1");
  const Events events = run(Allocate{"gpu1", {"t", 10}});
  EXPECT_EQ(std::get<BlockAllocated>(events.at(0)).block, (EntityId{0xABC, 2}));
  run(FreeBlock{"gpu1", "b-00000abc-2"});
  EXPECT_EQ(place(10), "b-00000abc-3");
  EXPECT_EQ(refusal(FreeBlock{"gpu1", "b-00000abc-3"}).code(), absl::StatusCode::kNotFound);  // it is gpu0's
  EXPECT_EQ(state_.live_block_count(), 2U);
  EXPECT_EQ(state_.pool_count(), 2U);
}

TEST_F(GpuMemoryStateMachine, RecordsTheWholeAllocationInItsEvent) {
  const std::string a = place_cached(400), b = place_cached(400), c = place(200);
  const AllocationRequest request{"big", 700, 4, true, 3};
  EXPECT_THAT(run(Allocate{"gpu0", request}),
              ElementsAre(BlockAllocated{"gpu0", request, {0xABC, 4}, 0, 700, {0, 400}, context_.now}));
}

TEST_F(GpuMemoryStateMachine, RecordsARefusedAllocationWithItsFigures) {
  const std::string a = place(400), b = place(200), c = place_cached(150, 2);
  run(FreeBlock{"gpu0", a});
  const AllocationRequest fragmented{"t", 600, 1, false, 2}, no_memory{"t", 801}, too_large{"t", 1001, 2};
  EXPECT_THAT(
      run(Allocate{"gpu0", fragmented}),
      ElementsAre(AllocationRefused{"gpu0", fragmented, AllocationFailure::Fragmented, 600, 1000, 650, 150, 400}));
  EXPECT_THAT(
      run(Allocate{"gpu0", no_memory}),
      ElementsAre(AllocationRefused{"gpu0", no_memory, AllocationFailure::OutOfMemory, 801, 1000, 650, 0, 400}));
  EXPECT_THAT(
      run(Allocate{"gpu0", too_large}),
      ElementsAre(AllocationRefused{"gpu0", too_large, AllocationFailure::LargerThanPool, 1002, 1000, 650, 0, 400}));
}

TEST_F(GpuMemoryStateMachine, EvictsForOneAllocationUpToTheLimit) {
  for (int i = 0; i < 10; ++i) place_cached(100);
  context_.max_evictions = 4;
  const absl::Status status = refusal(Allocate{"gpu0", {"t", 401}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("evict first"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("5 Cached blocks"));
  EXPECT_THAT(std::get<BlockAllocated>(run(Allocate{"gpu0", {"t", 400}}).at(0)).evicted, SizeIs(4));
}

TEST_F(GpuMemoryStateMachine, EvictStopsAtTheLimitAndSaysThatThereIsMore) {
  for (int i = 0; i < 5; ++i) place_cached(100);
  context_.max_changes = 2;
  const auto evicted = [](std::uint64_t number, bool more) { return BlockEvicted{"gpu0", {0xABC, number}, 100, more}; };
  EXPECT_THAT(run(Evict{"gpu0", 400}), ElementsAre(evicted(1, false), evicted(2, true)));
  EXPECT_THAT(run(Evict{"gpu0", 200}), ElementsAre(evicted(3, false), evicted(4, false)));  // enough
  EXPECT_THAT(run(Evict{"gpu0", 900}), ElementsAre(evicted(5, false)));                     // all there is
  EXPECT_THAT(run(Evict{"gpu0", 900}), IsEmpty());
  EXPECT_THAT(run(Evict{"gpu0", 0}), IsEmpty());
}

TEST_F(GpuMemoryStateMachine, DefragmentsInStepsToTheSameEnd) {
  std::vector<std::string> gaps;
  for (int i = 0; i < 7; ++i) {
    gaps.push_back(place(10));
    place(20);
  }
  for (const std::string& id : gaps) run(FreeBlock{"gpu0", id});
  const std::vector<Move> whole = state_.plan_defragment("gpu0", kAll);
  ASSERT_THAT(whole, SizeIs(7));
  EXPECT_EQ(state_.plan_defragment("gpu0", 2), std::vector<Move>(whole.begin(), whole.begin() + 2));
  context_.max_changes = 3;
  std::vector<Move> done;
  std::vector<bool> more;
  for (Events events = run(Defragment{"gpu0"}); !events.empty(); events = run(Defragment{"gpu0"})) {
    EXPECT_THAT(events, SizeIs(testing::Le(3)));
    for (const Event& event : events) {
      const auto& moved = std::get<BlockMoved>(event);
      done.push_back({format_entity_id(kBlockIdPrefix, moved.block), moved.from, moved.to, moved.size});
    }
    more.push_back(std::get<BlockMoved>(events.back()).more);
  }
  EXPECT_EQ(done, whole);
  EXPECT_THAT(more, ElementsAre(true, true, false));
}

// A best fit would have put it elsewhere: the log is history, whatever the strategy is now.
TEST_F(GpuMemoryStateMachine, PlacesARecordedBlockWhereItsEventSays) {
  place(100);
  const std::string freed = place(50);
  place(100);
  run(FreeBlock{"gpu0", freed});  // the best fit for 10 bytes is [100, 150)
  const auto record = [&](std::uint64_t number, std::size_t offset, std::size_t alignment) {
    given({BlockAllocated{"gpu0", {"old", 10, alignment}, {0xABC, number}, offset, 10, {}, 1}});
  };
  record(90, 600, 1);
  record(91, 120, 2);
  record(92, 990, 1);
  EXPECT_THAT(state_.blocks_for_tensor("gpu0", "old", 0, kAll),
              ElementsAre(testing::Field(&MemoryBlock::offset, 120U), testing::Field(&MemoryBlock::offset, 600U),
                          testing::Field(&MemoryBlock::offset, 990U)));
  std::size_t end = 0;
  for (const MemoryBlock& block : blocks()) {
    EXPECT_EQ(block.offset, end);
    end += block.size;
  }
  EXPECT_EQ(end, 1000U);
}

TEST_F(GpuMemoryStateMachine, ListsATensorOfThousandsOfBlocksByOffset) {
  constexpr std::size_t kCount = 3'000;
  given({PoolCreated{{"gpu1", 4 * kCount, 0, {}}}});
  std::vector<std::string> ids;
  std::mt19937 random(1);
  const auto check = [&] {
    std::vector<MemoryBlock> want;
    for (const MemoryBlock& block : state_.blocks("gpu1", 0, kAll)) {
      if (block.status != Free) want.push_back(block);
    }
    ASSERT_EQ(want.size(), ids.size());
    ASSERT_EQ(state_.blocks_for_tensor("gpu1", "t", 0, kAll), want);
    const std::size_t from = random() % (2 * kCount);
    std::erase_if(want, [&](const MemoryBlock& block) { return block.offset < from; });
    want.resize(std::min<std::size_t>(want.size(), 10));
    ASSERT_EQ(state_.blocks_for_tensor("gpu1", "t", from, 10), want);
  };
  for (std::size_t i = 0; i < kCount; ++i) {
    const Events events = run(Allocate{"gpu1", {"t", 1 + random() % 3}});
    ids.push_back(format_entity_id(kBlockIdPrefix, std::get<BlockAllocated>(events.at(0)).block));
    if (i % 200 == 0) check();
  }
  std::shuffle(ids.begin(), ids.end(), random);
  while (!ids.empty()) {
    run(FreeBlock{"gpu1", ids.back()});
    ids.pop_back();
    if (ids.size() % 200 == 0) check();
    if (ids.size() == kCount / 2) run(Defragment{"gpu1"});
  }
  EXPECT_THAT(state_.blocks_for_tensor("gpu1", "t", 0, kAll), IsEmpty());
}

TEST_F(GpuMemoryStateMachine, LeavesOutATouchNearTheRecordedOne) {
  const std::string id = place(10);
  const std::uint64_t placed = context_.now;
  context_.touch_granularity_ms = 1000;
  const struct {
    std::uint64_t now;
    std::size_t events;
  } cases[] = {{placed - 5, 0},    {placed, 0},        {placed + 999, 0},
               {placed + 1000, 1}, {placed + 1999, 0}, {placed + 2000, 1}};
  for (const auto& [now, events] : cases) {
    context_.now = now;
    EXPECT_THAT(run(TouchBlock{"gpu0", id}), SizeIs(events)) << now;
  }
  EXPECT_EQ(state_.block("gpu0", id)->last_accessed, placed + 2000);
}

TEST_F(GpuMemoryStateMachine, ListsInPages) {
  for (const char* device : {"a", "z", "m"}) run(CreatePool{{device, 10, 0, {}}});
  const auto ids = [](const std::vector<const GpuDevice*>& devices) {
    std::vector<std::string> out;
    for (const GpuDevice* device : devices) out.push_back(device->device_id);
    return out;
  };
  EXPECT_THAT(ids(state_.pools(std::nullopt, 2)), ElementsAre("a", "gpu0"));
  EXPECT_THAT(ids(state_.pools("gpu0", 10)), ElementsAre("m", "z"));
  EXPECT_THAT(ids(state_.pools("z", 10)), IsEmpty());

  for (int i = 0; i < 5; ++i) place(100);
  run(FreeBlock{"gpu0", "b-00000abc-2"});
  const std::vector<MemoryBlock> whole = blocks();
  std::vector<MemoryBlock> paged;
  for (auto page = state_.blocks("gpu0", 0, 2); !page.empty();
       page = state_.blocks("gpu0", page.back().offset + 1, 2)) {
    paged.insert(paged.end(), page.begin(), page.end());
  }
  EXPECT_EQ(paged, whole);
  EXPECT_THAT(state_.blocks_for_tensor("gpu0", "t", 0, 3), SizeIs(3));
  EXPECT_THAT(state_.blocks_for_tensor("gpu0", "t", 201, 3), SizeIs(2));
  EXPECT_THAT(state_.blocks("nothing", 0, kAll), IsEmpty());
  EXPECT_THAT(state_.blocks_for_tensor("nothing", "t", 0, kAll), IsEmpty());
  EXPECT_THAT(state_.plan_defragment("nothing", kAll), IsEmpty());
  EXPECT_EQ(state_.stats("nothing"), std::nullopt);
  EXPECT_EQ(state_.device("nothing"), nullptr);
  EXPECT_EQ(state_.device("gpu0")->compute_capability.second, 6U);
}

/// The digest as docs/journal_format.md describes it, from what the state shows.
Digest digest_by_hand(const State& state) {
  Digest sum;
  for (const GpuDevice* device : state.pools(std::nullopt, kAll)) {
    sum += CanonicalBytes("pool")
               .text(device->device_id)
               .number(device->total_memory)
               .number(device->memory_clock_mhz)
               .number(device->compute_capability.first)
               .number(device->compute_capability.second)
               .digest();
    for (const MemoryBlock& block : state.blocks(device->device_id, 0, kAll)) {
      if (block.status == Free) continue;
      sum += CanonicalBytes("block")
                 .text(device->device_id)
                 .text(block.block_id)
                 .number(block.offset)
                 .number(block.size)
                 .number(static_cast<std::uint64_t>(block.status))
                 .number(1)
                 .text(*block.tensor_id)
                 .number(block.allocated_at)
                 .number(block.last_accessed)
                 .number(block.alignment)
                 .number(static_cast<std::uint64_t>(static_cast<std::int64_t>(block.priority)))
                 .digest();
    }
  }
  return sum;
}

/// What a state shows, whole.
struct Picture {
  std::vector<std::vector<MemoryBlock>> blocks;
  std::vector<PoolStats> stats;
  Digest digest;
  std::size_t live_block_count{};
  std::uint64_t next_block_number{};
  bool operator==(const Picture&) const = default;
};
Picture picture(const State& state) {
  Picture out{{}, {}, state.digest(), state.live_block_count(), state.next_block_number()};
  for (const GpuDevice* device : state.pools(std::nullopt, kAll)) {
    out.blocks.push_back(state.blocks(device->device_id, 0, kAll));
    out.stats.push_back(state.stats(device->device_id).value());
  }
  return out;
}

class RandomCommands {
 public:
  explicit RandomCommands(std::uint32_t seed) : random_(seed) {}

  Command next(const State& state) {
    const std::string device = "gpu" + std::to_string(below(3));
    const std::vector<MemoryBlock> blocks = state.blocks(device, 0, kAll);
    const std::string block = blocks.empty() ? "free-0" : blocks[below(blocks.size())].block_id;
    switch (below(16)) {
      case 0:
        return CreatePool{{device, 500 + below(500), 1, {8, 0}}};
      case 1:
        return FreeBlock{device, block};
      case 2:
      case 3:
        return PinBlock{device, block};
      case 4:
        return UnpinBlock{device, block};
      case 5:
        return TouchBlock{device, block};
      case 6:
        return Evict{device, below(100)};
      case 7:
        return Defragment{device};
      case 8:
      case 9:
      case 10:
        return CacheBlock{device, block};
      default:
        return Allocate{device,
                        {"tensor" + std::to_string(below(4)), below(200), std::size_t{1} << below(6), below(9) == 0,
                         static_cast<std::int32_t>(below(4)) - 2}};
    }
  }
  std::size_t below(std::size_t limit) { return random_() % limit; }

 private:
  std::mt19937 random_;
};

TEST(GpuMemoryProperty, UndoPutsEverythingBack) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomCommands commands(seed);
    State state;
    Context context;
    for (int batch = 0; batch < 40; ++batch) {
      const Picture before = picture(state);
      Undo former;
      for (std::size_t i = 0, n = commands.below(12); i < n; ++i) {
        context.now += commands.below(3);
        const Result<Events> events = decide(state, commands.next(state), context);
        if (!events.ok()) continue;
        for (const Event& event : *events) apply(state, event, &former);
      }
      if (commands.below(3) == 0) continue;  // keeps what the batch did
      undo(state, std::move(former));
      ASSERT_EQ(picture(state), before);
      ASSERT_EQ(state.digest(), digest_by_hand(state));
    }
  }
}

TEST(GpuMemoryProperty, ReplayGivesTheSameStateAndDigest) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomCommands commands(seed);
    State live, replayed;
    Context context;
    for (int step = 0; step < 150; ++step) {
      context.now += commands.below(3);
      const Result<Events> events = decide(live, commands.next(live), context);
      if (!events.ok()) continue;
      for (const Event& event : *events) apply(live, event);
      for (const Event& event : *events) apply(replayed, event);
      ASSERT_EQ(live.digest(), digest_by_hand(live));
    }
    ASSERT_EQ(picture(replayed), picture(live));
  }
}

/// A new state with the same pools and blocks, which knows nothing of the history.
State rebuilt(const State& state) {
  State out;
  for (const GpuDevice* device : state.pools(std::nullopt, kAll)) {
    apply(out, PoolCreated{*device});
    for (const MemoryBlock& block : state.blocks(device->device_id, 0, kAll)) {
      if (block.status == Free) continue;
      const EntityId id = parse_entity_id(kBlockIdPrefix, block.block_id).value();
      apply(out, BlockAllocated{device->device_id,
                                {*block.tensor_id, block.size, block.alignment, block.status == Pinned, block.priority},
                                id,
                                block.offset,
                                block.size,
                                {},
                                block.allocated_at});
      apply(out, BlockTouched{device->device_id, id, block.last_accessed});
      if (block.status == Cached) apply(out, BlockCached{device->device_id, id});
    }
  }
  return out;
}

TEST(GpuMemoryProperty, WhatIsRememberedOfTheHistoryChangesNoPlan) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomCommands commands(seed);
    State state;
    Context context;
    for (int step = 0; step < 150; ++step) {
      context.now += commands.below(3);
      context.max_changes = 1 + commands.below(4);  // most defragmentations stop on the way
      const Result<Events> events = decide(state, commands.next(state), context);
      if (!events.ok()) continue;
      for (const Event& event : *events) apply(state, event);
      const State fresh = rebuilt(state);
      ASSERT_EQ(fresh.digest(), state.digest());
      for (const GpuDevice* device : state.pools(std::nullopt, kAll)) {
        ASSERT_EQ(state.plan_defragment(device->device_id, kAll), fresh.plan_defragment(device->device_id, kAll));
      }
      const Command next = Allocate{"gpu0", {"t", 1 + commands.below(200), std::size_t{1} << commands.below(6)}};
      const Result<Events> want = decide(fresh, next, context), got = decide(state, next, context);
      ASSERT_EQ(got.status(), want.status());
      if (!got.ok()) continue;
      const auto* const placed = std::get_if<BlockAllocated>(&got->front());
      const auto* const placed_fresh = std::get_if<BlockAllocated>(&want->front());
      ASSERT_EQ(placed == nullptr, placed_fresh == nullptr);
      if (placed != nullptr) {
        ASSERT_EQ(placed->offset, placed_fresh->offset);
        ASSERT_EQ(placed->evicted, placed_fresh->evicted);
      }
    }
  }
}

// Whatever it asks the memory for is there: AddressSanitizer would tell.
TEST_F(GpuMemoryStateMachine, PrefetchOfAnythingFollowsOnlyWhatIsThere) {
  const auto prefetch_all = [&](const std::vector<std::string>& ids) {
    const Digest before = state_.digest();
    for (const PrefetchStep step : kPrefetchSteps) {
      for (const char* device : {"gpu0", "gpu9", ""}) {
        for (const std::string& id : ids) Prefetch(state_, device, id)(step);
        Prefetch(state_, device, EntityId{0xABC, 1})(step);
        for (const char* tensor : {"t", "never", ""}) {
          const AllocationRequest request{tensor, 1};
          Prefetch(state_, device, request)(step);
        }
      }
    }
    EXPECT_EQ(state_.digest(), before);
  };
  prefetch_all({"b-00000abc-1", "free-0", "b-", ""});
  const std::vector<std::string> ids{place(400), place(100), place(500)};  // the first, and the last piece of all
  prefetch_all(ids);
  run(FreeBlock{"gpu0", ids[1]});
  prefetch_all(ids);
  run(FreeBlock{"gpu0", ids[2]});
  run(FreeBlock{"gpu0", ids[0]});
  prefetch_all(ids);
}

}  // namespace
}  // namespace tensorforge::gpu_memory
