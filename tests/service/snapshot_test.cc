// A state that was saved and loaded is the same state: in its digests, in its bytes, and in all that it ever does
// again.
#include "service/snapshot.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/snapshot.h"
#include "storage/snapshot_file.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/random_commands.h"
#include "tests/support/service_fixture.h"

namespace tensorforge {
namespace {

using test::pages_of;
using test::RandomCommands;

Result<service::State> loaded_from(const std::vector<std::string>& pages, const service::SessionLimits& limits = {}) {
  return service::load_state(
      [at = pages.begin(), end = pages.end()]() mutable -> Result<std::optional<std::string_view>> {
        return at == end ? std::nullopt : std::optional<std::string_view>(*at++);
      },
      limits);
}

class SnapshotTest : public test::ServiceTest {
 protected:
  /// Some sessions, of which each answers at times.
  Options options(RandomCommands& random) {
    Options chosen;
    const std::uint64_t session = random.below(6);
    chosen.session[0] = static_cast<std::uint8_t>(session + 1);
    chosen.number = ++numbers_[session];
    chosen.answered_below =
        random.below(2) == 0 ? 0 : chosen.number - std::min<std::uint64_t>(random.below(4), chosen.number - 1);
    chosen.opened_at = opened_at_[session];
    return chosen;
  }
  void run_random(RandomCommands& random, std::size_t commands) {
    for (std::size_t i = 0; i < commands; ++i) {
      tick(random.below(50'000));
      const Command command = random.next(state());
      run(command, options(random));
    }
  }
  /// The same commands for the service that goes on and for one that was begun from `restored`.
  void expect_same_future(RandomCommands& random, service::State restored, std::size_t commands) {
    service::Service twin(config_, std::move(restored), test::counting_bytes(), now_);
    for (std::size_t i = 0; i < commands; ++i) {
      const std::uint64_t ms = random.below(50'000);
      tick(ms);
      twin.on_tick(now_);
      const Command command = random.next(state());
      const Options chosen = options(random);
      Request request;
      request.command_number = chosen.number;
      request.answered_below = chosen.answered_below;
      service::Caller caller;
      caller.actor = "ann";
      caller.session = chosen.session;
      caller.opened_at = *chosen.opened_at;
      const service::Service::Outcome live = service_->execute(caller, request, command);
      const service::Service::Outcome again = twin.execute(caller, request, command);
      ASSERT_EQ(live.reply.status, again.reply.status);
      ASSERT_EQ(live.reply, again.reply);
      ASSERT_EQ(live.in_log, again.in_log);
    }
    EXPECT_EQ(pages_of(state()), pages_of(twin.state()));
    EXPECT_EQ(noted_digest(state()), noted_digest(twin.state()));
  }

  std::array<std::uint64_t, 6> numbers_{};
  std::array<Sequence, 6> opened_at_{1, 1, 1, 1, 1, 1};
};

TEST_F(SnapshotTest, HoldsTheWholeStateWhateverTheHistory) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    start({}, seed % 3 == 0 ? service::SessionLimits{4, 30, 1'024} : service::SessionLimits{});
    numbers_ = {};
    RandomCommands random(seed);
    run_random(random, 150);

    const std::vector<std::string> pages = pages_of(state());
    Result<service::State> loaded = loaded_from(pages, limits_);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(noted_digest(*loaded), noted_digest(state()));
    EXPECT_EQ(loaded->time, state().time);
    EXPECT_EQ(loaded->incarnation(), state().incarnation());
    EXPECT_EQ(pages_of(*loaded), pages);
    expect_same_future(random, *std::move(loaded), 150);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SnapshotTest, FoldedFromTheLastOneIsTheLiveState) {
  for (std::uint32_t seed = 101; seed <= 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    start({}, {});
    numbers_ = {};
    RandomCommands random(seed);
    std::optional<service::State> folded;
    for (int round = 0; round < 4; ++round) {
      run_random(random, 60);
      flush();
      service::Replay replay(std::numeric_limits<Sequence>::max(), limits_);
      if (folded) replay = service::Replay(*std::move(folded));
      for (Sequence next = replay.state().sequence + 1; next <= state().sequence; ++next) {
        const auto read = journal_->read(next, 1, 1);
        ASSERT_TRUE(replay.add(std::as_bytes(std::span(read->records.at(0)))).ok());
      }
      ASSERT_TRUE(replay.finish().ok());
      ASSERT_EQ(noted_digest(replay.state()), noted_digest(state()));
      const std::vector<std::string> pages = pages_of(replay.state());
      ASSERT_EQ(pages, pages_of(state()));
      Result<service::State> loaded = loaded_from(pages);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      folded = *std::move(loaded);
    }
  }
}

TEST_F(SnapshotTest, OfAnEmptyStateIsOne) {
  const Result<service::State> loaded = loaded_from(pages_of(state()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->sequence, 1U);
  EXPECT_EQ(loaded->digest(), state().digest());
}

TEST_F(SnapshotTest, CutsPagesOfManyAndOfLargeEntities) {
  for (int i = 0; i < 300; ++i) {
    registry::ModelMetadata model;
    model.model_id = "large-" + std::to_string(i);
    for (int tag = 0; tag < 8; ++tag) model.tags["tag-" + std::to_string(tag)] = std::string(1'900, 'x');
    ASSERT_EQ(code(SingleCommand(registry::Command(registry::RegisterModel{model}))), absl::StatusCode::kOk);
  }
  const std::vector<std::string> pages = pages_of(state());
  EXPECT_GT(pages.size(), 20U);
  for (const std::string& page : pages) EXPECT_LE(page.size(), std::size_t{256} << 10U);
  const Result<service::State> loaded = loaded_from(pages);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(pages_of(*loaded), pages);
}

TEST_F(SnapshotTest, WithoutAPageOrWithOneTwiceIsRefused) {
  RandomCommands random(7);
  run_random(random, 400);
  const std::vector<std::string> pages = pages_of(state());
  ASSERT_EQ(pages.size(), 11U);  // one of each part, and one of blocks for each pool
  for (std::size_t i = 0; i < pages.size(); ++i) {
    std::vector<std::string> without = pages, doubled = pages;
    without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
    doubled.insert(doubled.begin() + static_cast<std::ptrdiff_t>(i), pages[i]);
    EXPECT_EQ(loaded_from(without).status().code(), absl::StatusCode::kDataLoss) << "without page " << i;
    EXPECT_EQ(loaded_from(doubled).status().code(), absl::StatusCode::kDataLoss) << "page " << i << " twice";
    if (i + 1 == pages.size()) continue;
    std::vector<std::string> swapped = pages;
    std::swap(swapped[i], swapped[i + 1]);
    const bool both_blocks = i == 4 || i == 5;  // of two pools: no order is wrong
    EXPECT_EQ(loaded_from(swapped).ok(), both_blocks) << "pages " << i << " and " << i + 1;
  }
  EXPECT_EQ(loaded_from({}).status().code(), absl::StatusCode::kDataLoss);
}

/// A state with one of each, whose parts are then made impossible: whole pages with lies in them.
class LyingSnapshot : public SnapshotTest {
 protected:
  LyingSnapshot() {
    RandomCommands random(7);
    run_random(random, 400);
    for (const std::string& page : pages_of(state())) {
      parts_.push_back(codec::decode_snapshot_part(std::as_bytes(std::span(page))).value());
    }
  }
  template <class Part>
  Part& part() {
    return std::get<Part>(*std::find_if(parts_.begin(), parts_.end(),
                                        [](const auto& each) { return std::holds_alternative<Part>(each); }));
  }
  absl::StatusCode code_of(const std::function<void()>& lie) {
    const std::vector<SnapshotPart> truth = parts_;
    lie();
    std::vector<std::string> pages;
    for (const SnapshotPart& each : parts_) pages.push_back(codec::encode_snapshot_part(each).value());
    parts_ = truth;
    return loaded_from(pages).status().code();
  }

  std::vector<SnapshotPart> parts_;
};

TEST_F(LyingSnapshot, IsRefused) {
  ASSERT_EQ(code_of([] {}), absl::StatusCode::kOk);
  const std::vector<std::pair<const char*, std::function<void()>>> lies = {
      {"more models than there are", [&] { ++part<SnapshotFacts>().counts.models; }},
      {"more streams", [&] { part<SnapshotFacts>().counts.streams = ~0ULL; }},
      {"another digest", [&] { ++part<SnapshotFacts>().gpu_memory.low; }},
      {"a block number that was given", [&] { part<SnapshotFacts>().next_block_number = 1; }},
      {"a checkpoint number that was given", [&] { part<SnapshotFacts>().next_checkpoint_number = 1; }},
      {"no incarnation", [&] { part<SnapshotFacts>().incarnations.clear(); }},
      {"an incarnation to come", [&] { part<SnapshotFacts>().incarnations.back().first_sequence = ~0ULL; }},
      {"another model",
       [&] {
         registry::PackedModel& first = part<SnapshotModels>().models.front();
         registry::ModelMetadata other = copy_of(first.view());
         other.name += "x";
         first = other;
       }},
      {"a model twice", [&] { part<SnapshotModels>().models.push_back(part<SnapshotModels>().models.front()); }},
      {"a validation of nothing", [&] { part<SnapshotValidations>().validations.front().model_id = "nobody"; }},
      {"a pool without memory", [&] { part<SnapshotPools>().pools.front().total_memory = 0; }},
      {"a pool twice", [&] { part<SnapshotPools>().pools.push_back(part<SnapshotPools>().pools.front()); }},
      {"blocks of no pool", [&] { part<SnapshotBlocks>().device_id = "nowhere"; }},
      {"a block beyond the memory", [&] { part<SnapshotBlocks>().blocks.back().offset = ~0ULL; }},
      {"a block that is too large", [&] { part<SnapshotBlocks>().blocks.back().size = ~0ULL; }},
      {"a block of no bytes", [&] { part<SnapshotBlocks>().blocks.front().size = 0; }},
      {"a free block", [&] { part<SnapshotBlocks>().blocks.front().status = gpu_memory::BlockStatus::Free; }},
      {"a block twice", [&] { part<SnapshotBlocks>().blocks.push_back(part<SnapshotBlocks>().blocks.front()); }},
      {"blocks that overlap",
       [&] { std::swap(part<SnapshotBlocks>().blocks.at(0), part<SnapshotBlocks>().blocks.at(1)); }},
      {"a checkpoint twice",
       [&] { part<SnapshotCheckpoints>().checkpoints.push_back(part<SnapshotCheckpoints>().checkpoints.back()); }},
      {"a parent that is not there",
       [&] {
         part<SnapshotCheckpoints>().checkpoints.back().created.parent = EntityId{1, 2};
       }},
      {"a parent in another run",
       [&] {
         auto& all = part<SnapshotCheckpoints>().checkpoints;
         all.back().created.parent = all.front().created.checkpoint;
         all.front().created.request.training_run_id = "another";
       }},
      {"a policy twice",
       [&] { part<SnapshotPolicies>().policies.push_back(part<SnapshotPolicies>().policies.front()); }},
      {"a session twice",
       [&] { part<SnapshotSessions>().sessions.push_back(part<SnapshotSessions>().sessions.front()); }},
      {"commands out of order",
       [&] {
         part<SnapshotSessions>().sessions.front().entries = {{9, 5, 1}, {9, 6, 1}};
       }},
      {"the stream of a model twice",
       [&] { part<SnapshotStreams>().streams.push_back(part<SnapshotStreams>().streams.front()); }},
      {"another stream twice",
       [&] { part<SnapshotStreams>().streams.push_back(part<SnapshotStreams>().streams.back()); }},
      {"a model without its stream, of as many as it says",
       [&] {
         part<SnapshotStreams>().streams.erase(part<SnapshotStreams>().streams.begin());
         --part<SnapshotFacts>().counts.streams;
       }},
      {"a stream without an event", [&] { part<SnapshotStreams>().streams.front().last = 0; }},
      {"a stream of no model", [&] { part<SnapshotStreams>().streams.front().name = "model/nobody"; }},
      {"a model without its stream",
       [&] { part<SnapshotStreams>().streams.erase(part<SnapshotStreams>().streams.begin()); }},
  };
  for (const auto& [name, lie] : lies) {
    EXPECT_EQ(code_of(lie), absl::StatusCode::kDataLoss) << name;
  }
}

// ---- the bytes that were written once

const std::filesystem::path kGolden = TENSORFORGE_GOLDEN_DIR "/snapshots";

std::string file_of(const storage::SnapshotHead& head, const service::State& state) {
  const storage::TemporaryDirectory directory;
  const storage::SnapshotStore store(nullptr, directory.path().string());
  const auto writer = store.create(head).value();
  EXPECT_TRUE(service::save_state(state, [&](std::string_view page) { return writer->add(page); }).ok());
  EXPECT_TRUE(writer->finish().ok());
  return storage::read_bytes(store.path(head.at.sequence()));
}

/// Not a test: writes the file that the next one reads, where there is none. tests/golden/README.md
TEST_F(SnapshotTest, DISABLED_WriteGolden) {
  RandomCommands random(2026);
  run_random(random, 600);
  flush();
  const std::string sequence = std::to_string(state().sequence);
  ASSERT_FALSE(std::filesystem::exists(kGolden)) << "a released file is never written again";
  std::filesystem::create_directories(kGolden);
  storage::LogPoint point;
  while (point.sequence() < state().sequence) {
    ++point.chunk_number;
    point.frontier.append(journal_->read(point.sequence() + 1, 1, 1)->records.at(0));
  }
  storage::write_bytes(kGolden / sequence, file_of({test::kLogId, test::kIncarnation, point}, state()));
}

TEST(GoldenSnapshot, ReadsAndIsWrittenAsItWas) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    SCOPED_TRACE(entry.path());
    ++files;
    const auto reader = storage::SnapshotReader::open(*rocksdb::FileSystem::Default(), entry.path().string());
    ASSERT_TRUE(reader.ok()) << reader.status();
    const Result<service::State> loaded = service::load_state([&] { return (*reader)->next(); });
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(std::to_string(loaded->sequence), entry.path().filename());
    EXPECT_EQ(file_of((*reader)->head(), *loaded), storage::read_bytes(entry.path()));
  }
  EXPECT_EQ(files, 1U);
}

}  // namespace
}  // namespace tensorforge
