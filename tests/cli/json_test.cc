#include "tools/cli/json.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace tensorforge::cli {
namespace {

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [key, value] : object.items()) names.push_back(key);
  return names;
}

using Keys = std::vector<std::string>;

TEST(JsonTest, ModelsHaveTheFieldsOfTheContract) {
  registry::ModelMetadata model{"net", "Net", {1, 2, 3}, "pytorch", {1, 3}, {10}, 7, "sha256:0", 99, {}, {{"k", "v"}}};
  EXPECT_EQ(dump(to_json(model)),
            R"({"model_id":"net","name":"Net","version":"1.2.3","framework":"pytorch","input_shape":[1,3],)"
            R"("output_shape":[10],"size_bytes":7,"checksum":"sha256:0","registered_at":99,"state":"Registered",)"
            R"("tags":{"k":"v"}})");
}

TEST(JsonTest, AbsentOptionalsAreLeftOut) {
  gpu_memory::MemoryBlock free_block;
  free_block.block_id = "free-0";
  EXPECT_FALSE(to_json(free_block).contains("tensor_id"));
  free_block.tensor_id = "t";
  EXPECT_EQ(to_json(free_block)["tensor_id"], "t");

  checkpoint::CheckpointMeta root;
  EXPECT_FALSE(to_json(root).contains("parent_id"));
  root.parent_id = "ck-00000001-1";
  EXPECT_EQ(to_json(root)["parent_id"], "ck-00000001-1");

  EXPECT_EQ(to_json(ReplyResult(result::BestModelFound{})), Json::object());
  EXPECT_FALSE(to_json(result::Status{}).contains("changes_refused_because"));
}

TEST(JsonTest, InfinityIsNullAndLargeNumbersAreExact) {
  result::PoolStats stats;
  stats.stats.total_bytes = std::numeric_limits<std::size_t>::max();
  stats.seconds_to_oom = std::numeric_limits<double>::infinity();
  const std::string text = dump(to_json(stats));
  EXPECT_NE(text.find(R"("seconds_to_oom":null)"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("total_bytes":18446744073709551615)"), std::string::npos) << text;
}

TEST(JsonTest, TextThatIsNotUtf8IsReplacedAndNeverRefused) {
  registry::ModelMetadata model;
  model.name = "\xFF";
  EXPECT_NE(dump(to_json(model)).find("\xEF\xBF\xBD"), std::string::npos);
}

TEST(JsonTest, AListOfOneThingIsThatThing) {
  EXPECT_TRUE(to_json(ReplyResult(result::Models{{{}}})).is_object());
  EXPECT_TRUE(to_json(ReplyResult(result::Models{{{}, {}}})).is_array());
  EXPECT_TRUE(to_json(ReplyResult(result::Checkpoints{})).is_array());
}

TEST(JsonTest, ResultsHaveTheirPromisedKeys) {
  const struct {
    ReplyResult result;
    Keys want;
  } cases[] = {
      {result::Done{}, {}},
      {result::Registered{}, {"model_id", "version", "state", "registered_at"}},
      {result::Transitioned{}, {"model_id", "version", "from", "to"}},
      {result::Allocated{}, {"success", "block_id", "offset", "actual_size", "evicted_blocks"}},
      {result::Evicted{}, {"freed_bytes", "blocks"}},
      {result::Moves{}, {"moved", "moves"}},
      {result::Collected{}, {"deleted"}},
      {result::BatchResult{}, {"replies"}},
      {result::ValidationFound{},
       {"model_id", "version", "passed", "latency_p50_ms", "latency_p99_ms", "accuracy_score", "errors"}},
      {result::Chain{}, {"checkpoints", "length", "size_bytes", "estimated_restore_ms"}},
      {result::Due{}, {"due", "last_step", "interval"}},
      {result::Policy{},
       {"max_checkpoints_per_run", "max_age_seconds", "keep_best_n", "metric_key", "metric_ascending", "inherited"}},
      {result::LogVerified{}, {"sequence", "root", "chunks", "bytes"}},
      {result::PoolStats{},
       {"total_bytes", "allocated_bytes", "free_bytes", "pinned_bytes", "cached_bytes", "fragmentation_ratio",
        "largest_free_block", "block_count", "allocation_count", "memory_pressure", "should_defragment",
        "seconds_to_oom"}},
      {result::Status{},
       {"sequence",
        "anchored_sequence",
        "state_digest",
        "incarnation",
        "log_id",
        "verified_to",
        "root",
        "version",
        "ack",
        "started_at",
        "time",
        "models",
        "model_versions",
        "pools",
        "live_blocks",
        "checkpoints",
        "sessions",
        "connections",
        "refused",
        "group_commit_p50_us",
        "group_commit_p99_us",
        "snapshot_sequence"}},
      {result::SnapshotTaken{}, {"sequence", "bytes"}},
  };
  for (const auto& [result, want] : cases) EXPECT_EQ(keys(to_json(result)), want);
}

TEST(JsonTest, EventsNameTheirBlocksAndCheckpointsAsPeopleDo) {
  const Event allocated = gpu_memory::Event(gpu_memory::BlockAllocated{.device_id = "gpu0",
                                                                       .request = {"t", 5, 4, true, -1},
                                                                       .block = {0x0a, 7},
                                                                       .offset = 8,
                                                                       .actual_size = 8,
                                                                       .evicted = {0, 16},
                                                                       .at = 3});
  EXPECT_EQ(dump(to_json(allocated)),
            R"({"device_id":"gpu0","block_id":"b-0000000a-7","request":{"tensor_id":"t","size":5,"alignment":4,)"
            R"("pinned":true,"priority":-1},"offset":8,"actual_size":8,"evicted":[0,16],"at":3})");
  const Event created = checkpoint::Event(checkpoint::CheckpointCreated{
      .checkpoint = {1, 2}, .request = {"r", 1, 2, {}, {}}, .parent = EntityId{1, 1}, .created_at = 0});
  EXPECT_EQ(to_json(created)["parent_id"], "ck-00000001-1");
  EXPECT_EQ(keys(to_json(created)), (Keys{"checkpoint_id", "training_run_id", "epoch", "step", "checkpoint_type",
                                          "metrics", "parent_id", "created_at"}));
}

TEST(JsonTest, ALogEntrySaysWhoDidWhatAndWhy) {
  Record record;
  record.sequence = 9;
  record.actor = "ann";
  record.session = SessionId{1};
  record.command_number = 4;
  record.event =
      registry::Event(registry::StateTransitioned{"net", {1, 0, 0}, {}, registry::DeploymentState::Validating});
  const Json entry = log_entry(record, Note{"nightly", "", "127.0.0.1"});
  EXPECT_EQ(entry["event"], "StateTransitioned");
  EXPECT_EQ(entry["streams"], Json::array({"model/net"}));
  EXPECT_EQ(entry["request_id"], "01000000000000000000000000000000-4");
  EXPECT_EQ(entry["data"]["to"], "Validating");
  EXPECT_EQ(entry["reason"], "nightly");
  EXPECT_FALSE(entry.contains("display_name"));
  EXPECT_FALSE(entry.contains("opened_at"));
  EXPECT_FALSE(entry.contains("batch_index"));
  record.session.reset();
  record.batch_size = 2;
  const Json of_batch = log_entry(record, std::nullopt);
  EXPECT_FALSE(of_batch.contains("request_id"));
  EXPECT_EQ(of_batch["batch_index"], 0);
}

}  // namespace
}  // namespace tensorforge::cli
