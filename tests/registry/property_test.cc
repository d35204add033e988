// Random commands, and random undoing of them, against a second registry that is too simple to be wrong: a list.
#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "registry/state_machine.h"

namespace tensorforge::registry {
namespace {

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

struct Row {
  ModelMetadata model;
  std::optional<ValidationResult> validation;
};

/// Does what the contract says by looking at every row.
class NaiveRegistry {
 public:
  absl::StatusCode run(const Command& command) {
    return std::visit([&](const auto& one) { return run_one(one); }, command);
  }
  std::vector<Row> rows_where(const std::function<bool(const ModelMetadata&)>& wanted) const {
    std::vector<Row> found;
    std::copy_if(rows_.begin(), rows_.end(), std::back_inserter(found),
                 [&](const Row& row) { return wanted(row.model); });
    std::sort(found.begin(), found.end(), [](const Row& a, const Row& b) {
      if (a.model.model_id != b.model.model_id) return a.model.model_id < b.model.model_id;
      return compare_versions(a.model.version, b.model.version) < 0;
    });
    return found;
  }

 private:
  Row* row(const std::string& model_id, const ModelVersion& version) {
    for (Row& row : rows_) {
      if (row.model.model_id == model_id && row.model.version == version) return &row;
    }
    return nullptr;
  }
  static bool bad_id(const std::string& id) { return id.empty() || id.find('@') != std::string::npos; }

  absl::StatusCode run_one(const RegisterModel& command) {
    const ModelMetadata model = copy_of(command.model.view());
    if (bad_id(model.model_id) || model.state != DeploymentState::Registered) return absl::StatusCode::kInvalidArgument;
    if (model.tags.size() > 256) return absl::StatusCode::kInvalidArgument;
    if (row(model.model_id, model.version) != nullptr) return absl::StatusCode::kAlreadyExists;
    rows_.push_back({model, std::nullopt});
    return absl::StatusCode::kOk;
  }
  absl::StatusCode run_one(const TransitionState& command) {
    if (bad_id(command.model_id)) return absl::StatusCode::kInvalidArgument;
    Row* const found = row(command.model_id, command.version);
    if (found == nullptr) return absl::StatusCode::kNotFound;
    // From each state, by number: the states that may follow.
    static const std::vector<int> kFollowers[] = {{1}, {2, 0}, {3, 0}, {4, 2}, {5}, {6}, {}};
    const auto& followers = kFollowers[static_cast<int>(found->model.state)];
    if (std::count(followers.begin(), followers.end(), static_cast<int>(command.to)) == 0) {
      return absl::StatusCode::kFailedPrecondition;
    }
    found->model.state = command.to;
    return absl::StatusCode::kOk;
  }
  absl::StatusCode run_one(const RecordValidation& command) {
    const ValidationResult& validation = command.validation;
    if (bad_id(validation.model_id) || validation.accuracy_score != validation.accuracy_score) {
      return absl::StatusCode::kInvalidArgument;
    }
    Row* const found = row(validation.model_id, validation.version);
    if (found == nullptr) return absl::StatusCode::kNotFound;
    found->validation = validation;
    return absl::StatusCode::kOk;
  }

  std::vector<Row> rows_;
};

class Dice {
 public:
  explicit Dice(std::uint32_t seed) : random_(seed) {}

  std::uint32_t below(std::uint32_t sides) { return static_cast<std::uint32_t>(random_() % sides); }
  bool once_in(std::uint32_t sides) { return below(sides) == 0; }
  std::string id() {
    static const char* const kIds[] = {"a", "a/b", "b", "bert", "a name longer than what a string holds in place", "@"};
    return once_in(40) ? "" : kIds[once_in(20) ? 5 : below(5)];
  }
  ModelVersion version() { return {below(2), below(3), below(2)}; }
  DeploymentState state() { return static_cast<DeploymentState>(below(7)); }
  Command command() {
    switch (below(8)) {
      case 0:
      case 1:
        return RegisterModel{model()};
      case 2:
        return RecordValidation{validation()};
      default:
        return TransitionState{id(), version(), state()};
    }
  }

 private:
  ModelMetadata model() {
    ModelMetadata made{id(), "n", version(), "f", {below(3)}, {}, below(1000), "c", below(1000), {}, {{"k", "v"}}};
    if (once_in(20)) made.state = state();
    if (once_in(30)) {
      for (int i = 0; i < 257; ++i) made.tags[std::to_string(i)];
    }
    return made;
  }
  ValidationResult validation() {
    ValidationResult made{id(), version(), once_in(2), 1, 2.0 * below(9), 0.1 * below(9), {}};
    made.errors.assign(below(3), "error");
    if (once_in(15)) made.accuracy_score = std::numeric_limits<double>::quiet_NaN();
    return made;
  }

  std::mt19937 random_;
};

std::vector<ModelMetadata> models_of(const std::vector<Row>& rows) {
  std::vector<ModelMetadata> models;
  for (const Row& row : rows) models.push_back(row.model);
  return models;
}

std::vector<ModelMetadata> copies(const std::vector<ModelView>& views) {
  std::vector<ModelMetadata> models;
  for (const ModelView& view : views) models.push_back(copy_of(view));
  return models;
}

/// The rows behind `after`, at most `limit`.
std::vector<ModelMetadata> page_of(const std::vector<Row>& rows, const VersionKey& after, std::size_t limit) {
  std::vector<ModelMetadata> page;
  for (const Row& row : rows) {
    if (VersionKey{row.model.model_id, row.model.version} > after && page.size() < limit) page.push_back(row.model);
  }
  return page;
}

Digest digest_from_scratch(const std::vector<Row>& rows) {
  State fresh;
  for (const Row& row : rows) {
    apply(fresh, ModelRegistered{row.model});
    if (row.validation) apply(fresh, ValidationRecorded{*row.validation});
  }
  return fresh.digest();
}

void expect_same(const State& state, const NaiveRegistry& naive, Dice& dice) {
  const std::vector<Row> all = naive.rows_where([](const ModelMetadata&) { return true; });
  ASSERT_EQ(copies(state.list(std::nullopt, kAll)), models_of(all));
  ASSERT_EQ(state.version_count(), all.size());
  ASSERT_EQ(state.digest(), digest_from_scratch(all));

  const VersionKey after{dice.id(), dice.version()};
  const std::size_t limit = dice.below(6);
  ASSERT_EQ(copies(state.list(after, limit)), page_of(all, after, limit));

  std::set<std::string> ids;
  for (const Row& row : all) {
    const auto& [model, validation] = row;
    ids.insert(model.model_id);
    ASSERT_EQ(copy_of(*state.find(model.model_id, model.version)), model);
    const ValidationResult* held = state.validation(model.model_id, model.version);
    ASSERT_EQ(held == nullptr ? std::nullopt : std::optional(*held), validation);
  }
  for (int i = 0; i < 20; ++i) {
    const VersionKey any{dice.id(), dice.version()};
    const bool is_there = !naive
                               .rows_where([&](const ModelMetadata& model) {
                                 return model.model_id == any.model_id && model.version == any.version;
                               })
                               .empty();
    ASSERT_EQ(state.find(any.model_id, any.version).has_value(), is_there);
  }
  ASSERT_EQ(state.model_count(), ids.size());
  for (const std::string& id : ids) {
    const std::vector<Row> versions = naive.rows_where([&](const ModelMetadata& m) { return m.model_id == id; });
    ASSERT_EQ(copies(state.list_versions(id, std::nullopt, kAll)), models_of(versions));
    ASSERT_EQ(copies(state.list_versions(id, after.version, limit)), page_of(versions, {id, after.version}, limit));
    ASSERT_EQ(copy_of(*state.latest(id)), versions.back().model);
  }
  for (int i = 0; i < 7; ++i) {
    const auto wanted = static_cast<DeploymentState>(i);
    const std::vector<Row> found = naive.rows_where([&](const ModelMetadata& m) { return m.state == wanted; });
    ASSERT_EQ(copies(state.find_by_state(wanted, std::nullopt, kAll)), models_of(found));
    ASSERT_EQ(copies(state.find_by_state(wanted, after, limit)), page_of(found, after, limit));
  }
}

TEST(RegistryProperty, DoesWhatTheNaiveRegistryDoesAfterEveryCommand) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Dice dice(seed);
    State state;
    NaiveRegistry naive;
    for (int step = 0; step < 150; ++step) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      const Command command = dice.command();
      const Result<Events> events = decide(state, command);
      ASSERT_EQ(events.status().code(), naive.run(command)) << events.status();
      if (events.ok()) {
        for (const Event& event : *events) apply(state, event);
      }
      ASSERT_NO_FATAL_FAILURE(expect_same(state, naive, dice));
    }
  }
}

TEST(RegistryProperty, UndoRestoresExactlyWhatWas) {
  for (std::uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Dice dice(seed);
    State state;
    NaiveRegistry naive;
    for (int round = 0; round < 25; ++round) {
      SCOPED_TRACE(testing::Message() << "round " << round);
      NaiveRegistry trial = naive;
      Undo done;
      for (std::uint32_t i = dice.below(12); i > 0; --i) {
        const Command command = dice.command();
        const Result<Events> events = decide(state, command);
        ASSERT_EQ(events.status().code(), trial.run(command)) << events.status();
        if (!events.ok()) continue;
        for (const Event& event : *events) apply(state, event, done);
      }
      ASSERT_NO_FATAL_FAILURE(expect_same(state, trial, dice));
      if (dice.once_in(2)) {
        undo(state, std::move(done));
      } else {
        naive = trial;
      }
      ASSERT_NO_FATAL_FAILURE(expect_same(state, naive, dice));
    }
  }
}

TEST(RegistryProperty, ReplayOfTheEventsGivesTheSameState) {
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Dice dice(seed);
    State live;
    Events log;
    for (int step = 0; step < 300; ++step) {
      const Result<Events> events = decide(live, dice.command());
      if (!events.ok()) continue;
      for (const Event& event : *events) {
        apply(live, event);
        log.push_back(event);
      }
    }
    State replayed;
    for (const Event& event : log) apply(replayed, event);
    ASSERT_EQ(replayed.digest(), live.digest());
    ASSERT_EQ(copies(replayed.list(std::nullopt, kAll)), copies(live.list(std::nullopt, kAll)));
  }
}

}  // namespace
}  // namespace tensorforge::registry
