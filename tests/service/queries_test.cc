#include "service/queries.h"

#include <limits>

#include <gmock/gmock.h>

#include "tests/support/service_fixture.h"

namespace tensorforge::test {
namespace {

using absl::StatusCode;
using registry::DeploymentState;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class QueriesTest : public ServiceTest {
 protected:
  void validate(const std::string& id, registry::ModelVersion version, double p99, double accuracy,
                std::vector<std::string> errors = {}) {
    registry::ValidationResult validation{id, version, errors.empty(), p99 / 2, p99, accuracy, std::move(errors)};
    ASSERT_TRUE(run(SingleCommand(registry::Command(registry::RecordValidation{std::move(validation)}))).status.ok());
  }
  void deploy(const std::string& id, registry::ModelVersion version = {1, 0, 0}) {
    ASSERT_TRUE(run(register_model(id, version)).status.ok());
    for (const DeploymentState to : {DeploymentState::Validating, DeploymentState::Staging, DeploymentState::Canary}) {
      ASSERT_TRUE(run(transition(id, to, version)).status.ok());
    }
  }
  std::string allocated(const std::string& device, std::size_t size, const std::string& tensor = "t") {
    return result_of<result::Allocated>(run(allocate(device, size, tensor))).block_id;
  }
  std::string saved(const std::string& run_id, std::uint64_t step, checkpoint::CheckpointType type, double loss = 0) {
    checkpoint::CreateCheckpointRequest request{run_id, 1, step, type, {{"loss", loss}}};
    const Reply made = run(SingleCommand(checkpoint::Command(checkpoint::CreateCheckpoint{request})));
    std::string id = result_of<result::Checkpoints>(made).checkpoints.at(0).checkpoint_id;
    EXPECT_TRUE(run(complete(id, 1000)).status.ok());
    return id;
  }
  StatusCode refusal(const Query& query) { return ask(query).status.code(); }

  /// Follows the pages of a list; gives the size of each.
  template <class Result, class Q, class Member>
  std::vector<std::size_t> pages(Q query, Member member) {
    std::vector<std::size_t> sizes;
    for (;;) {
      const Reply reply = ask(query);
      if (!reply.status.ok()) {
        ADD_FAILURE() << reply.status;
        return sizes;
      }
      sizes.push_back((std::get<Result>(reply.result).*member).size());
      if (!reply.next_page_token) return sizes;
      query.page.token = reply.next_page_token;
    }
  }
};

TEST_F(QueriesTest, UnknownIdsAreNotFound) {
  run(register_model("known"));
  run(create_pool("gpu0", 100));
  run(create_checkpoint("run", 1));
  const std::vector<Query> queries = {
      query::GetModel{"m", std::nullopt},
      query::GetModel{"known", registry::ModelVersion{2, 0, 0}},
      query::ListVersions{"m", {}},
      query::GetValidation{"m", {1, 0, 0}},
      query::GetValidation{"known", {1, 0, 0}},
      query::CompareShapes{"known", {1, 0, 0}, "m", {1, 0, 0}},
      query::CheckSla{"m", {1, 0, 0}, 1, 1},
      query::BestModel{{"known", "m"}},
      query::RollbackPriority{"known", {1, 0, 0}, {2, 0, 0}},
      query::GetPoolStats{"gpu1"},
      query::ListBlocks{"gpu1", {}},
      query::GetBlock{"gpu1", "b"},
      query::GetBlock{"gpu0", "b"},
      query::BlocksForTensor{"gpu1", "t", {}},
      query::PlanDefragment{"gpu1"},
      query::GetCheckpoint{"ck"},
      query::ListCheckpoints{"r", {}},
      query::LatestCheckpoint{"r"},
      query::LatestCheckpoint{"run"},
      query::FindRestorePoint{{"r", {}, {}}},
      query::FindRestorePoint{{"run", {}, {}}},
      query::RestorationChain{"ck", {}},
      query::ValidateCheckpoint{"ck"},
      query::FindCheckpoints{"r", "loss", 1, true, {}},
  };
  for (std::size_t i = 0; i < queries.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "query " << i);
    const Reply reply = ask(queries[i]);
    EXPECT_EQ(reply.status.code(), StatusCode::kNotFound) << reply.status;
    EXPECT_EQ(reply.sequence, state().sequence);
  }
}

TEST_F(QueriesTest, GetModelWithoutAVersionGivesTheHighest) {
  run(register_model("m", {1, 10, 0}));
  run(register_model("m", {1, 9, 0}));
  EXPECT_EQ(result_of<result::Models>(ask(query::GetModel{"m", std::nullopt})).models.at(0).version,
            (registry::ModelVersion{1, 10, 0}));
}

TEST_F(QueriesTest, ListsComeInPagesThatJoinUp) {
  for (std::uint32_t i = 0; i < 25; ++i) run(register_model(i % 2 == 0 ? "even" : "odd", {i, 0, 0}));
  run(create_pool("gpu0", 10'000));
  run(create_pool("gpu1", 10'000));
  run(create_pool("gpu2", 10'000));
  for (int i = 0; i < 7; ++i) allocated("gpu0", 10, i % 2 == 0 ? "a" : "b");
  for (int i = 0; i < 5; ++i) saved("run", static_cast<std::uint64_t>(i), checkpoint::CheckpointType::Full, i);
  using result::Blocks, result::Checkpoints, result::Models, result::Pools, result::Versions;
  EXPECT_THAT((pages<Models>(query::ListModels{{10, {}}}, &Models::models)), ElementsAre(10, 10, 5));
  EXPECT_THAT((pages<Models>(query::ListModels{{25, {}}}, &Models::models)), ElementsAre(25)) << "no empty last page";
  EXPECT_THAT((pages<Models>(query::FindModels{DeploymentState::Registered, {24, {}}}, &Models::models)),
              ElementsAre(24, 1));
  EXPECT_THAT((pages<Versions>(query::ListVersions{"even", {6, {}}}, &Versions::versions)), ElementsAre(6, 6, 1));
  EXPECT_THAT((pages<Pools>(query::ListPools{{2, {}}}, &Pools::pools)), ElementsAre(2, 1));
  EXPECT_THAT((pages<Blocks>(query::ListBlocks{"gpu0", {3, {}}}, &Blocks::blocks)), ElementsAre(3, 3, 2));
  EXPECT_THAT((pages<Blocks>(query::BlocksForTensor{"gpu0", "a", {3, {}}}, &Blocks::blocks)), ElementsAre(3, 1));
  EXPECT_THAT((pages<Checkpoints>(query::ListCheckpoints{"run", {2, {}}}, &Checkpoints::checkpoints)),
              ElementsAre(2, 2, 1));
  EXPECT_THAT((pages<Checkpoints>(query::FindCheckpoints{"run", "loss", 3, true, {2, {}}}, &Checkpoints::checkpoints)),
              ElementsAre(2, 2));
}

TEST_F(QueriesTest, APageEndsAtHalfAFrameToo) {
  config_.max_reply_bytes = 1000;
  start(config_, {});
  for (std::uint32_t i = 0; i < 10; ++i) run(register_model(std::string(200, 'm'), {i, 0, 0}));
  const auto sizes = pages<result::Models>(query::ListModels{}, &result::Models::models);
  EXPECT_THAT(sizes, ElementsAre(2, 2, 2, 2, 2));
  const std::string training(250, 'r');
  for (std::uint64_t i = 0; i < 5; ++i) saved(training, i, checkpoint::CheckpointType::Full, 0);
  EXPECT_THAT((pages<result::Checkpoints>(query::ListCheckpoints{training, {}}, &result::Checkpoints::checkpoints)),
              ElementsAre(2, 2, 1));
  config_.max_reply_bytes = 100;  // less than one
  start(config_, {});
  for (std::uint64_t i = 0; i < 3; ++i) saved("run", i, checkpoint::CheckpointType::Full, 0);
  EXPECT_THAT((pages<result::Checkpoints>(query::ListCheckpoints{"run", {}}, &result::Checkpoints::checkpoints)),
              ElementsAre(1, 1, 1));
}

TEST_F(QueriesTest, AFullPageOfManyCheckpointsEndsAtItsBytesToo) {
  config_.max_reply_bytes = 48'000;
  start(config_, {});
  for (std::uint64_t i = 0; i < 250; ++i) saved(std::string(250, 'r'), i, checkpoint::CheckpointType::Full, 0);
  const auto sizes = pages<result::Checkpoints>(query::ListCheckpoints{std::string(250, 'r'), {250, {}}},
                                                &result::Checkpoints::checkpoints);
  ASSERT_EQ(sizes.size(), 3U);
  EXPECT_EQ(sizes[0], sizes[1]);
  EXPECT_EQ(sizes[0] + sizes[1] + sizes[2], 250U);
}

TEST_F(QueriesTest, CheckpointsComeInLongPagesToo) {
  using result::Checkpoints;
  for (std::uint64_t i = 0; i < 150; ++i) {
    saved("run", i, checkpoint::CheckpointType::Full, static_cast<double>(i % 7));
  }
  for (const std::uint32_t size : {64U, 128U, 149U, 150U}) {
    std::vector<std::size_t> want;
    for (std::size_t left = 150; left > 0; left -= want.back()) want.push_back(std::min<std::size_t>(left, size));
    EXPECT_EQ((pages<Checkpoints>(query::ListCheckpoints{"run", {size, {}}}, &Checkpoints::checkpoints)), want);
    EXPECT_EQ(
        (pages<Checkpoints>(query::FindCheckpoints{"run", "loss", 9, true, {size, {}}}, &Checkpoints::checkpoints)),
        want);
  }
  EXPECT_EQ(
      result_of<Checkpoints>(ask(query::FindCheckpoints{"run", "loss", 1, true, {100, {}}})).checkpoints.at(22).step,
      148U)
      << "22 have the loss 0, then those of 1 come, the last one first";
}

TEST_F(QueriesTest, ATokenThatIsNoneIsRefused) {
  run(register_model("m"));
  run(create_pool("gpu0", 100));
  run(create_checkpoint("run", 1));
  run(create_checkpoint("other", 1));
  const std::string other = state().checkpoint.list_for_run("other", std::nullopt, 1).at(0).checkpoint_id;
  EXPECT_EQ(refusal(query::ListModels{{0, "m"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListModels{{0, "m@1.0"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListVersions{"m", {0, "x"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListBlocks{"gpu0", {0, "12x"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListBlocks{"gpu0", {0, ""}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListBlocks{"gpu0", {0, "99999999999999999999"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListCheckpoints{"run", {0, "nothing"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListCheckpoints{"run", {0, other}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListModels{{10'001, {}}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(query::ListModels{{10'000, "zzz@9.9.9"}}), StatusCode::kOk) << "behind the end is empty";
}

TEST_F(QueriesTest, BestModelKnowsTheVersionToo) {
  deploy("a", {1, 0, 0});
  deploy("a", {2, 0, 0});
  deploy("b");
  run(register_model("c"));
  validate("a", {1, 0, 0}, 10, 0.9);
  validate("a", {2, 0, 0}, 10, 0.8);
  validate("b", {1, 0, 0}, 20, 0.9);
  validate("c", {1, 0, 0}, 1, 0.99);
  EXPECT_EQ(result_of<result::BestModelFound>(ask(query::BestModel{{"c", "b", "a"}})),
            (result::BestModelFound{"a", registry::ModelVersion{1, 0, 0}}));
  EXPECT_EQ(result_of<result::BestModelFound>(ask(query::BestModel{{"c"}})).model_id, std::nullopt);
}

TEST_F(QueriesTest, ComparesModels) {
  run(register_model("m"));
  run(register_model("m", {2, 0, 0}));
  validate("m", {1, 0, 0}, 100, 0.9);
  validate("m", {2, 0, 0}, 200, 0.9, {"slow"});
  EXPECT_EQ(result_of<result::Number>(ask(query::RollbackPriority{"m", {2, 0, 0}, {1, 0, 0}})).value, 60);
  EXPECT_EQ(result_of<result::Number>(ask(query::CompareShapes{"m", {1, 0, 0}, "m", {2, 0, 0}})).value, 1);
  EXPECT_TRUE(result_of<result::Verdict>(ask(query::CheckSla{"m", {1, 0, 0}, 100, 0.9})).holds);
  const auto broken = result_of<result::Verdict>(ask(query::CheckSla{"m", {2, 0, 0}, 100, 0.9}));
  EXPECT_FALSE(broken.holds);
  EXPECT_EQ(broken.problem, "p99 is 200 ms and may be 100, accuracy is 0.9 and has to be 0.9");
}

TEST_F(QueriesTest, PoolStatsCountCachedMemoryAsAvailable) {
  config_.fragmentation_threshold = 0.1;
  config_.defragment_min_block_bytes = 1000;
  start(config_, {});
  run(create_pool("gpu0", 1000));
  const std::string first = allocated("gpu0", 200);
  allocated("gpu0", 300);
  run(cache("gpu0", first));
  auto stats = result_of<result::PoolStats>(ask(query::GetPoolStats{"gpu0"}));
  EXPECT_DOUBLE_EQ(stats.memory_pressure, 0.3);
  EXPECT_FALSE(stats.should_defragment);
  EXPECT_DOUBLE_EQ(stats.seconds_to_oom, 700 / (300 / 60.0)) << "300 bytes came into use in the last minute";
  run(free_block("gpu0", first));
  stats = result_of<result::PoolStats>(ask(query::GetPoolStats{"gpu0"}));
  EXPECT_TRUE(stats.should_defragment);
  tick(60'000);
  stats = result_of<result::PoolStats>(ask(query::GetPoolStats{"gpu0"}));
  EXPECT_EQ(stats.seconds_to_oom, std::numeric_limits<double>::infinity()) << "nothing grew since";
  restart();
  stats = result_of<result::PoolStats>(ask(query::GetPoolStats{"gpu0"}));
  EXPECT_EQ(stats.seconds_to_oom, std::numeric_limits<double>::infinity());
  EXPECT_EQ(stats.stats.allocated_bytes, 300u);
}

TEST_F(QueriesTest, ThePlanOfADefragmentationIsThatOfOneCommand) {
  config_.max_changes = 2;
  start(config_, {});
  run(create_pool("gpu0", 1000));
  const std::string first = allocated("gpu0", 100);
  for (int i = 0; i < 3; ++i) allocated("gpu0", 100);
  EXPECT_EQ(result_of<result::Moves>(ask(query::PlanDefragment{"gpu0"})), result::Moves{});
  run(free_block("gpu0", first));
  const auto plan = result_of<result::Moves>(ask(query::PlanDefragment{"gpu0"}));
  EXPECT_THAT(plan.moves, SizeIs(2));
  EXPECT_TRUE(plan.more);
  EXPECT_EQ(result_of<result::Moves>(run(defragment("gpu0"))), plan);
}

TEST_F(QueriesTest, AChainComesInPagesWithTheFiguresOfTheWhole) {
  config_.restore_base_ms = 5;
  config_.restore_per_checkpoint_ms = 10;
  config_.restore_bytes_per_ms = 100;
  start(config_, {});
  saved("run", 1, checkpoint::CheckpointType::Full);
  saved("run", 2, checkpoint::CheckpointType::Incremental);
  const std::string leaf = saved("run", 3, checkpoint::CheckpointType::Incremental);
  query::RestorationChain query{leaf, {2, {}}};
  const Reply first = ask(query);
  const auto& chain = result_of<result::Chain>(first);
  EXPECT_EQ(chain.length, 3u);
  EXPECT_EQ(chain.size_bytes, 3000u);
  EXPECT_EQ(chain.estimated_restore_ms, 5u + 30u + 30u);
  ASSERT_THAT(chain.checkpoints, SizeIs(2));
  query.page.token = first.next_page_token;
  const Reply second = ask(query);
  ASSERT_THAT(result_of<result::Chain>(second).checkpoints, SizeIs(1));
  EXPECT_EQ(result_of<result::Chain>(second).checkpoints[0].checkpoint_id, leaf);
  EXPECT_EQ(result_of<result::Chain>(second).length, 3u);
  EXPECT_EQ(second.next_page_token, std::nullopt);
  query.page.token = "nothing";
  EXPECT_EQ(refusal(query), StatusCode::kInvalidArgument);
}

TEST_F(QueriesTest, ReadsCheckpoints) {
  const std::string full = saved("run", 10, checkpoint::CheckpointType::Full, 0.5);
  const std::string delta = saved("run", 20, checkpoint::CheckpointType::Incremental, 0.4);
  const auto ids = [](const Reply& reply) {
    std::vector<std::string> all;
    for (const auto& each : result_of<result::Checkpoints>(reply).checkpoints) all.push_back(each.checkpoint_id);
    return all;
  };
  EXPECT_THAT(ids(ask(query::LatestCheckpoint{"run"})), ElementsAre(delta));
  EXPECT_THAT(ids(ask(query::GetCheckpoint{full})), ElementsAre(full));
  checkpoint::RestoreCriteria criteria;
  criteria.training_run_id = "run";
  criteria.max_step = 15;
  EXPECT_THAT(ids(ask(query::FindRestorePoint{criteria})), ElementsAre(full));
  EXPECT_TRUE(result_of<result::Verdict>(ask(query::ValidateCheckpoint{delta})).holds);
  run(corrupt(full));
  const auto broken = result_of<result::Verdict>(ask(query::ValidateCheckpoint{delta}));
  EXPECT_FALSE(broken.holds);
  EXPECT_FALSE(broken.problem.empty());
}

TEST_F(QueriesTest, ACheckpointIsDueWhenAWholeIntervalHasPassed) {
  config_.checkpoint_interval_steps = 100;
  start(config_, {});
  EXPECT_EQ(result_of<result::Due>(ask(query::CheckpointDue{"new", 99, {}})), (result::Due{false, 0, 100}));
  saved("run", 50, checkpoint::CheckpointType::Full);
  EXPECT_EQ(result_of<result::Due>(ask(query::CheckpointDue{"run", 150, {}})), (result::Due{true, 50, 100}));
  EXPECT_EQ(result_of<result::Due>(ask(query::CheckpointDue{"run", 150, 101})), (result::Due{false, 50, 101}));
}

TEST_F(QueriesTest, ARunWithoutAPolicyInheritsTheDefault) {
  EXPECT_EQ(result_of<result::Policy>(ask(query::GetPolicy{})), (result::Policy{{}, false}));
  checkpoint::GcPolicy policy;
  policy.max_checkpoints_per_run = 3;
  run(SingleCommand(checkpoint::Command(checkpoint::SetPolicy{std::nullopt, policy})));
  EXPECT_EQ(result_of<result::Policy>(ask(query::GetPolicy{"run"})), (result::Policy{policy, true}));
  policy.keep_best_n = 2;
  run(SingleCommand(checkpoint::Command(checkpoint::SetPolicy{"run", policy})));
  EXPECT_EQ(result_of<result::Policy>(ask(query::GetPolicy{"run"})), (result::Policy{policy, false}));
}

TEST_F(QueriesTest, ThoseThatNeedTheLogAreNotAnsweredFromTheState) {
  for (const Query& query : std::vector<Query>{query::ReadLog{}, query::ReadHistory{}, query::VerifyLog{},
                                               query::GetStatus{}, query::TakeSnapshot{}}) {
    EXPECT_EQ(refusal(query), StatusCode::kInternal);
  }
}

}  // namespace
}  // namespace tensorforge::test
