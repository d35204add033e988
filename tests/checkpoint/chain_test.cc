#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/support.h"

namespace tensorforge::checkpoint {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

TEST(Chain, RunsFromTheRootToTheTargetWhateverTheOrderOfTheSpan) {
  const std::vector<CheckpointMeta> span = {link("i2", "i1", 5), link("other"), link("f0", {}, 100),
                                            link("i1", "f0", 7)};
  EXPECT_THAT(restoration_chain(span, "i2"), ElementsAre("f0", "i1", "i2"));
  EXPECT_EQ(chain_length(span, "i2"), 3u);
  EXPECT_EQ(find_chain_root(span, "i2"), "f0");
  EXPECT_EQ(chain_size(span, "i2"), 112u);
}

TEST(Chain, OfARootIsTheRootAlone) {
  const std::vector<CheckpointMeta> span = {link("f0"), link("i1", "f0")};
  EXPECT_THAT(restoration_chain(span, "f0"), ElementsAre("f0"));
  EXPECT_EQ(chain_length(span, "f0"), 1u);
  EXPECT_EQ(find_chain_root(span, "f0"), "f0");
}

TEST(Chain, IsNothingWhereItDoesNotReachARoot) {
  const struct {
    const char* name;
    std::vector<CheckpointMeta> span;
  } cases[] = {
      {"empty span", {}},
      {"unknown target", {link("a")}},
      {"missing parent", {link("x", "gone")}},
      {"missing grandparent", {link("x", "y"), link("y", "gone")}},
      {"parent with an empty id that nobody has", {link("x", "")}},
      {"its own parent", {link("x", "x")}},
      {"cycle of two", {link("x", "y"), link("y", "x")}},
      {"below a cycle", {link("x", "a"), link("a", "b"), link("b", "c"), link("c", "a")}},
  };
  for (const auto& [name, span] : cases) {
    SCOPED_TRACE(name);
    EXPECT_THAT(restoration_chain(span, "x"), IsEmpty());
    EXPECT_EQ(chain_length(span, "x"), 0u);
    EXPECT_EQ(find_chain_root(span, "x"), std::nullopt);
    EXPECT_EQ(chain_size(span, "x"), 0u);
  }
}

TEST(Chain, HandlesAHundredThousandLinksAndACycleOfAsMany) {
  constexpr int kLinks = 100'000;
  std::vector<CheckpointMeta> span = {link("0", {}, 1)};
  for (int i = 1; i < kLinks; ++i) span.push_back(link(std::to_string(i), std::to_string(i - 1), 1));
  const std::string last = span.back().checkpoint_id;
  EXPECT_EQ(chain_length(span, last), std::size_t{kLinks});
  EXPECT_EQ(chain_size(span, last), std::uint64_t{kLinks});
  EXPECT_TRUE(validate_checkpoint(span.back(), span).ok());

  span.front().parent_id = last;
  EXPECT_EQ(chain_length(span, last), 0u);
  EXPECT_THAT(std::string(validate_checkpoint(span.back(), span).message()), HasSubstr("in all"));
}

TEST(Chain, CountsTheFirstHolderOfAnId) {
  const std::vector<CheckpointMeta> span = {link("x", {}, 1), link("x", "x", 2)};
  EXPECT_EQ(chain_size(span, "x"), 1u);
}

TEST(Chain, SizesSaturate) {
  const std::vector<CheckpointMeta> span = {link("a", {}, kMax), link("b", "a", 1), link("c", "b", kMax)};
  EXPECT_EQ(chain_size(span, "b"), kMax);
  EXPECT_EQ(chain_size(span, "c"), kMax);
}

TEST(RestoreTime, AddsTheBaseTheCheckpointsAndTheTransferRoundedUp) {
  const std::vector<CheckpointMeta> chain = {link("a", {}, 1000), link("b", "a", 1)};
  EXPECT_EQ(estimate_restore_time(chain, 50, 20, 100.0), 50u + 40u + 11u);
  EXPECT_EQ(estimate_restore_time(chain, 50, 20, 1001.0), 50u + 40u + 1u);
  EXPECT_EQ(estimate_restore_time(chain, 0, 0, std::numeric_limits<double>::infinity()), 0u);
  EXPECT_EQ(estimate_restore_time({}, 50, 20, 100.0), 50u);
}

TEST(RestoreTime, IsTheLargestNumberWithoutARateAndSaturates) {
  const std::vector<CheckpointMeta> chain = {link("a", {}, kMax), link("b", "a", kMax)};
  const std::vector<CheckpointMeta> small = {link("a", {}, 1), link("b", "a", 1)};
  for (const double rate :
       {0.0, -0.0, -1.0, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(estimate_restore_time(small, 0, 0, rate), kMax) << rate;
    EXPECT_EQ(estimate_restore_time({}, 0, 0, rate), kMax) << rate;
  }
  EXPECT_EQ(estimate_restore_time(chain, 0, 0, 1.0), kMax);
  EXPECT_EQ(estimate_restore_time(small, 0, 0, std::numeric_limits<double>::denorm_min()), kMax);
  EXPECT_EQ(estimate_restore_time(small, 0, kMax, 1.0), kMax);
  EXPECT_EQ(estimate_restore_time(small, kMax, 1, 1.0), kMax);
}

TEST(Validation, AcceptsAChainThatAgreesWithItself) {
  const std::vector<CheckpointMeta> span = {link("f0"), link("i1", "f0"), link("i2", "i1")};
  EXPECT_TRUE(validate_checkpoint(span[0], span).ok());
  EXPECT_TRUE(validate_checkpoint(span[2], span).ok());
  EXPECT_TRUE(validate_checkpoint(link("i3", "i2"), span).ok()) << "it need not be in the span itself";
}

TEST(Validation, AcceptsAnEmergencyRootAndAChildThatIsStillBeingMade) {
  CheckpointMeta root = link("e");
  root.checkpoint_type = kEmergency;
  CheckpointMeta child = link("i", "e");
  child.state = CheckpointState::Creating;
  child.storage_path.clear();
  EXPECT_TRUE(validate_checkpoint(child, std::vector{root, child}).ok());
}

TEST(Validation, NamesTheFault) {
  struct Case {
    const char* name;
    absl::StatusCode code;
    const char* message;
    void (*damage)(CheckpointMeta& root, CheckpointMeta& parent, CheckpointMeta& target);
  };
  using M = CheckpointMeta;
  const Case cases[] = {
      {"no path", absl::StatusCode::kFailedPrecondition, "storage path",
       [](M&, M&, M& target) { target.storage_path.clear(); }},
      {"missing parent", absl::StatusCode::kNotFound, "\"gone\" of \"target\" does not exist",
       [](M&, M&, M& target) { target.parent_id = "gone"; }},
      {"missing grandparent", absl::StatusCode::kNotFound, "\"gone\" of \"parent\" does not exist",
       [](M&, M& parent, M&) { parent.parent_id = "gone"; }},
      {"other run", absl::StatusCode::kFailedPrecondition, "belongs to run \"s\"",
       [](M&, M& parent, M&) { parent.training_run_id = "s"; }},
      {"Deleted parent", absl::StatusCode::kFailedPrecondition, "is Deleted",
       [](M&, M& parent, M&) { parent.state = CheckpointState::Deleted; }},
      {"Corrupted parent", absl::StatusCode::kFailedPrecondition, "is Corrupted",
       [](M&, M& parent, M&) { parent.state = CheckpointState::Corrupted; }},
      {"parent at a later step", absl::StatusCode::kFailedPrecondition, "step 1, above its own 0",
       [](M&, M& parent, M&) { parent.step = 1; }},
      {"parent in a later epoch", absl::StatusCode::kFailedPrecondition, "epoch 1, above its own 0",
       [](M&, M& parent, M&) { parent.epoch = 1; }},
      {"an Incremental without parent", absl::StatusCode::kFailedPrecondition, "an Incremental without a parent",
       [](M& root, M&, M&) { root.checkpoint_type = kIncremental; }},
      {"its own parent", absl::StatusCode::kFailedPrecondition, "\"target\" → \"target\"",
       [](M&, M&, M& target) { target.parent_id = "target"; }},
      {"cycle", absl::StatusCode::kFailedPrecondition, "\"target\" → \"parent\" → \"root\" → \"target\"",
       [](M& root, M&, M&) { root.parent_id = "target"; }},
      {"cycle above", absl::StatusCode::kFailedPrecondition,
       "circle: ", [](M& root, M&, M&) { root.parent_id = "parent"; }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    std::vector<CheckpointMeta> span = {link("root"), link("parent", "root"), link("target", "parent")};
    c.damage(span[0], span[1], span[2]);
    const absl::Status status = validate_checkpoint(span[2], span);
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("\"target\""));
  }
}

}  // namespace
}  // namespace tensorforge::checkpoint
