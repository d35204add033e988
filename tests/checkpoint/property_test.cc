#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint/state_machine.h"
#include "tests/checkpoint/naive_model.h"
#include "tests/checkpoint/support.h"

namespace tensorforge::checkpoint {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
const std::string kRuns[] = {"a", "b"};
const std::string kKeys[] = {"loss", "recall@10"};

std::string deleted_id(const Event& event) {
  return format_entity_id(kCheckpointIdPrefix, std::get<CheckpointDeleted>(event).checkpoint);
}

/// A random history, kept in the state machine and in the model side by side.
///
/// Small ranges everywhere, so that steps, times and metrics collide. `tame`: the clock never goes back, and nothing is
/// corrupted that a live one descends from.
class History {
 public:
  History(std::uint32_t seed, bool tame) : random_(seed), tame_(tame) {}

  void step() {
    now_ = tame_ ? now_ + below(3) * 500 : 10'000 + below(40) * 500;
    if (below(40) == 0) ++incarnation_;
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return create();
      case 4:
      case 5:
      case 6:
      case 7:
        return complete();
      case 8:
        return corrupt();
      case 9:
        return remove();
      case 10:
        return set_policy();
      default:
        return collect();
    }
  }

  /// Only creates, completes and corrupts, so that there is something to collect.
  void grow(int steps) {
    for (int i = 0; i < steps; ++i) {
      ++now_;
      create();
      complete();
      if (below(5) == 0) corrupt();
    }
  }

  void expect_equal() {
    for (const CheckpointMeta& meta : model_.all()) ASSERT_EQ(state_.find(meta.checkpoint_id), meta);
    for (const std::string& run : kRuns) {
      ASSERT_EQ(state_.latest(run), model_.latest(run));
      expect_equal_lists(run);
      expect_equal_restore_points(run);
    }
    ASSERT_EQ(state_.total_count(), model_.total_count());
    ASSERT_EQ(state_.total_size(), model_.total_size());
    ASSERT_EQ(state_.digest(), model_.digest());
  }

  /// From here on, until take_back().
  void remember() {
    undo_.emplace();
    remembered_ = {model_, events_.size()};
  }
  void take_back() {
    if (!undo_) return;
    undo(state_, std::move(*undo_));
    undo_.reset();
    model_ = remembered_.first;
    events_.resize(remembered_.second);
  }

  /// The same events in a new state.
  State replay() const {
    State state;
    for (const Event& event : events_) apply(state, event);
    return state;
  }

  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }
  const State& state() const { return state_; }
  std::uint64_t now() const { return now_; }

 private:
  /// Decides, applies, and compares the verdict with the model's.
  Events run(const Command& command, absl::StatusCode want) {
    const Result<Events> events = decide(state_, command, {.now = now_, .incarnation = incarnation_});
    EXPECT_EQ(events.status().code(), want) << events.status();
    if (!events.ok()) return {};
    for (const Event& event : *events) {
      apply(state_, event, undo_ ? &*undo_ : nullptr);
      events_.push_back(event);
    }
    return *events;
  }

  std::string any_run() { return kRuns[below(2)]; }
  std::string any_id() {
    if (model_.all().empty() || below(30) == 0) return "ck-00000000-0";
    // Mostly among the newest: the others are mostly decided.
    const auto count = static_cast<std::uint32_t>(model_.all().size());
    const std::uint32_t back = below(3) == 0 ? below(count) : below(std::min(count, 6U));
    return model_.all()[count - 1 - back].checkpoint_id;
  }

  void create() {
    CreateCheckpointRequest request{any_run(), below(4), below(8), static_cast<CheckpointType>(below(3)), {}};
    if (below(2) == 0) request.checkpoint_type = kIncremental;
    for (const std::string& key : kKeys) {
      if (below(3) > 0) request.metrics[key] = static_cast<double>(below(4)) - 1.5;
    }
    run(CreateCheckpoint{request}, model_.create(request, now_, incarnation_));
  }
  void complete() {
    const CompleteCheckpoint command{any_id(), std::uint64_t{below(5)} << (below(10) == 0 ? 62U : 0U), "/store"};
    run(command, model_.complete(command.checkpoint_id, command.size_bytes, command.storage_path));
  }
  void corrupt() {
    const std::string id = any_id();
    if (tame_ && model_.has_live_descendant(id)) return;
    run(CorruptCheckpoint{id}, model_.corrupt(id));
  }
  void remove() {
    const std::string id = any_id();
    run(RemoveCheckpoint{id}, model_.remove(id));
  }
  void set_policy() {
    const GcPolicy policy{below(5), below(4), below(3), below(3) == 0 ? "" : kKeys[below(2)], below(2) == 0};
    const std::optional<std::string> of = below(2) == 0 ? std::nullopt : std::optional(any_run());
    model_.set_policy(of, policy);
    run(SetPolicy{of, policy}, absl::StatusCode::kOk);
  }
  void collect() {
    const std::vector<std::string> want = model_.gc(now_);
    std::vector<std::string> got;
    for (const Event& event : run(CollectGarbage{}, absl::StatusCode::kOk)) got.push_back(deleted_id(event));
    EXPECT_EQ(got, want);
    EXPECT_EQ(decide(state_, CollectGarbage{}, {.now = now_}).value(), Events{}) << "a second collection right after";
  }

  void expect_equal_lists(const std::string& run) {
    const std::size_t page = 1 + below(5);
    ASSERT_EQ(paged([&](const auto& after) { return state_.list_for_run(run, after, page); }), model_.list(run));
    const std::string& key = kKeys[below(2)];
    const double threshold = static_cast<double>(below(6)) - 2;
    for (const bool ascending : {true, false}) {
      ASSERT_EQ(
          paged([&](const auto& after) { return state_.find_by_metric(run, key, threshold, ascending, after, page); }),
          model_.find_by_metric(run, key, threshold, ascending));
    }
  }
  template <class GetPage>
  static std::vector<CheckpointMeta> paged(const GetPage& get_page) {
    std::vector<CheckpointMeta> all;
    std::optional<std::string> after;
    for (std::vector<CheckpointMeta> page = get_page(after); !page.empty(); page = get_page(after)) {
      all.insert(all.end(), page.begin(), page.end());
      after = page.back().checkpoint_id;
    }
    return all;
  }
  void expect_equal_restore_points(const std::string& run) {
    for (const bool require_complete : {true, false}) {
      for (const bool prefer_full : {true, false}) {
        RestoreCriteria criteria{run, {}, {}, require_complete, prefer_full};
        if (below(2) == 0) criteria.max_epoch = below(4);
        if (below(2) == 0) criteria.max_step = below(8);
        ASSERT_EQ(state_.find_restore_point(criteria), model_.find_restore_point(criteria));
      }
    }
  }

  std::mt19937 random_;
  bool tame_;
  std::uint64_t now_{10'000};
  std::uint32_t incarnation_{1};
  State state_;
  NaiveModel model_;
  Events events_;
  std::optional<Undo> undo_;
  std::pair<NaiveModel, std::size_t> remembered_;
};

/// Collects in pieces until nothing is left; returns how many went.
std::size_t collect_in_pieces(State& state, Context context) {
  std::size_t deleted = 0;
  for (bool more = true; more;) {
    const Events events = decide(state, CollectGarbage{}, context).value();
    EXPECT_TRUE(deleted == 0 || !events.empty()) << "the piece before said that there was more";
    more = !events.empty() && std::get<CheckpointDeleted>(events.back()).more;
    for (const Event& event : events) {
      EXPECT_EQ(std::get<CheckpointDeleted>(event).more, more && &event == &events.back());
      apply(state, event);
    }
    deleted += events.size();
  }
  context.max_deletions = context.max_path_bytes = kNoLimit;
  EXPECT_EQ(decide(state, CollectGarbage{}, context).value(), Events{}) << "it said that there was no more";
  return deleted;
}

TEST(CheckpointProperty, AgreesWithTheNaiveModelAfterEachStep) {
  for (std::uint32_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History history(seed, /*tame=*/seed % 2 == 0);
    for (int i = 0; i < 120; ++i) {
      history.step();
      history.expect_equal();
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(CheckpointProperty, UndoPutsEverythingBackAndHistoryGoesOnFromThere) {
  for (std::uint32_t seed = 1001; seed <= 1080; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History history(seed, /*tame=*/false);
    for (int i = 0; i < 25; ++i) {
      history.remember();
      for (std::uint32_t steps = history.below(12); steps > 0; --steps) history.step();
      if (history.below(2) == 0) history.take_back();
      history.expect_equal();
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(CheckpointProperty, ReplayGivesTheSameState) {
  for (std::uint32_t seed = 2001; seed <= 2050; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History history(seed, /*tame=*/false);
    for (int i = 0; i < 150; ++i) history.step();
    const State replayed = history.replay();
    ASSERT_EQ(replayed.digest(), history.state().digest());
    for (const std::string& run : kRuns) {
      ASSERT_EQ(replayed.list_for_run(run, {}, kNoLimit), history.state().list_for_run(run, {}, kNoLimit));
      for (const std::string& key : kKeys) {
        ASSERT_EQ(replayed.find_by_metric(run, key, 9, true, {}, kNoLimit),
                  history.state().find_by_metric(run, key, 9, true, {}, kNoLimit));
      }
    }
    ASSERT_EQ(decide(replayed, CollectGarbage{}, {.now = 99'000}).value(),
              decide(history.state(), CollectGarbage{}, {.now = 99'000}).value());
  }
}

TEST(CheckpointProperty, ACollectionInPiecesEndsWhereOneInFullDoes) {
  std::size_t collections_in_pieces = 0;
  for (std::uint32_t seed = 3001; seed <= 3200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const bool tame = seed % 2 == 0;
    History history(seed, tame);
    for (int i = 0; i < 20; ++i) history.step();
    history.grow(40);
    const GcPolicy strict{1 + history.below(3), history.below(3), history.below(2), "loss", true};
    State full = history.replay();
    State pieces = history.replay();
    for (State* state : {&full, &pieces}) apply(*state, PolicySet{{}, strict});
    const std::uint64_t now = history.now() + 1000;
    Context limited{.now = now};
    (seed % 4 < 2 ? limited.max_deletions : limited.max_path_bytes) = seed % 4 < 2 ? 1 + history.below(3) : 60;
    const std::size_t whole = collect_in_pieces(full, {.now = now});
    const std::size_t sum = collect_in_pieces(pieces, limited);
    if (whole > 3) ++collections_in_pieces;  // none of the limits lets so many go at once
    if (tame) {
      ASSERT_EQ(sum, whole);
      ASSERT_EQ(pieces.digest(), full.digest());
    }
    ASSERT_FALSE(testing::Test::HasFailure());
  }
  EXPECT_GT(collections_in_pieces, 100u) << "the histories leave too little to collect";
}

}  // namespace
}  // namespace tensorforge::checkpoint
