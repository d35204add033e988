// Every verb of the program, against a real service on a directory of its own.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/daemon.h"
#include "tests/support/programs.h"

namespace tensorforge::cli {
namespace {

using nlohmann::json;
using test::Daemon;
using test::Ran;
using test::run_program;
using test::TemporaryDirectory;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Arguments = std::vector<std::string>;

Ran tensorforge_on(const std::string& server, Arguments arguments, const std::string& input = "") {
  arguments.insert(arguments.begin(), {TENSORFORGE_PROGRAM, "--server", server});
  return run_program(arguments, input);
}

Arguments daemon_arguments(const std::filesystem::path& data_directory) {
  return {"--data-dir", data_directory.string(), "--listen", "127.0.0.1:0"};
}

/// One service for all tests of the suite, so each makes its own models, pools and runs.
class ProgramTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    daemon_ = std::make_unique<Daemon>(daemon_arguments(directory_->path() / "data"));
    ASSERT_TRUE(daemon_->ready()) << daemon_->errors();
  }
  static void TearDownTestSuite() {
    EXPECT_EQ(daemon_->stop(), 0);
    daemon_.reset();
    directory_.reset();
  }

  static Ran run(Arguments arguments, const std::string& input = "") {
    return tensorforge_on(daemon_->ready()->address, std::move(arguments), input);
  }
  /// What a verb that succeeds prints with --json.
  static json ask(Arguments arguments, const std::string& input = "") {
    arguments.push_back("--json");
    const Ran ran = run(arguments, input);
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
    return json::parse(ran.out, nullptr, false);
  }
  static void expect_change(const json& answer) {
    EXPECT_GT(answer.value("sequence", 0), 0) << answer;
    EXPECT_THAT(answer.value("request_id", ""), ::testing::MatchesRegex("[0-9a-f]{32}-[0-9]+")) << answer;
  }
  static void expect_refused(const Arguments& arguments, int exit_code, const std::string& start,
                             const std::string& part) {
    const Ran ran = run(arguments);
    EXPECT_EQ(ran.exit_code, exit_code) << ran.err;
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, StartsWith("error: " + start + ": "));
    EXPECT_THAT(ran.err, HasSubstr(part));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  }
  static std::vector<std::string> texts(const json& rows, const std::string& key) {
    std::vector<std::string> values;
    for (const json& row : rows) values.push_back(row.at(key));
    return values;
  }

  static std::unique_ptr<TemporaryDirectory> directory_;
  static std::unique_ptr<Daemon> daemon_;
};
std::unique_ptr<TemporaryDirectory> ProgramTest::directory_;
std::unique_ptr<Daemon> ProgramTest::daemon_;

// ---- model

TEST_F(ProgramTest, RegistersAModelAndShowsItInFull) {
  const json made =
      ask({"model",         "register", "full",           "1.2.3", "--name",   "Full",   "--framework", "pytorch",
           "--input-shape", "1x3x4",    "--output-shape", "10",    "--size",   "1.5KiB", "--checksum",  "sha256:0",
           "--tag",         "a=1",      "--tag",          "b=x=y", "--reason", "because"});
  expect_change(made);
  EXPECT_EQ(made["version"], "1.2.3");
  EXPECT_EQ(made["state"], "Registered");
  const json got = ask({"model", "get", "full"});
  EXPECT_EQ(got["name"], "Full");
  EXPECT_EQ(got["input_shape"], json({1, 3, 4}));
  EXPECT_EQ(got["output_shape"], json::array({10}));
  EXPECT_EQ(got["size_bytes"], 1536);
  EXPECT_EQ(got["tags"], json({{"a", "1"}, {"b", "x=y"}}));
  EXPECT_EQ(got["registered_at"], made["registered_at"]);
  EXPECT_EQ(ask({"log", "show", std::to_string(made["sequence"].get<int>())})["reason"], "because");
}

TEST_F(ProgramTest, WalksAModelThroughItsLifecycle) {
  ask({"model", "register", "walk", "1.0.0"});
  for (const char* state : {"Validating", "Staging", "Canary", "Production"}) {
    const json moved = ask({"model", "transition", "walk", "1.0.0", state});
    expect_change(moved);
    EXPECT_EQ(moved["to"], state);
  }
  expect_change(ask({"model", "validate", "walk", "1.0.0", "--p50", "8", "--p99", "12.5", "--accuracy", "0.75"}));
  const json validation = ask({"model", "validation", "walk", "1.0.0"});
  EXPECT_EQ(validation["latency_p99_ms"], 12.5);
  EXPECT_EQ(validation["passed"], true);
  EXPECT_EQ(ask({"model", "sla", "walk", "1.0.0", "--max-latency", "12.5", "--min-accuracy", "0.75"})["meets_sla"],
            true);
  EXPECT_EQ(ask({"model", "sla", "walk", "1.0.0", "--max-latency", "12", "--min-accuracy", "0.75"})["meets_sla"],
            false);
  EXPECT_EQ(ask({"model", "best", "walk"})["model_id"], "walk");
  EXPECT_THAT(texts(ask({"model", "find", "Production"}), "model_id"), ::testing::Contains("walk"));
}

TEST_F(ProgramTest, MakesAValidationOfRawSamples) {
  ask({"model", "register", "samples", "1.0.0"});
  ask({"model", "validate", "samples", "1.0.0", "--samples", "-", "--accuracy", "0.5"}, "# ms\n1\n2\n3\n");
  EXPECT_EQ(ask({"model", "validation", "samples", "1.0.0"})["latency_p50_ms"], 2);
  ask({"model", "validate", "samples", "1.0.0", "--samples", "-", "--accuracy", "0.5", "--error", "oom", "--error",
       "slow"},
      "4\n");
  const json failed = ask({"model", "validation", "samples", "1.0.0"});
  EXPECT_EQ(failed["passed"], false);
  EXPECT_EQ(failed["errors"], json({"oom", "slow"}));
  const Ran wrong = run({"model", "validate", "samples", "1.0.0", "--samples", "-", "--accuracy", "0.5"}, "1\nfast\n");
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("line 2: \"fast\" is not a number"));
}

TEST_F(ProgramTest, ComparesVersions) {
  ask({"model", "register", "pair", "1.0.0", "--input-shape", "1x3", "--output-shape", "10"});
  ask({"model", "register", "pair", "2.0.0", "--input-shape", "1x4", "--output-shape", "10"});
  EXPECT_EQ(ask({"model", "compat", "pair@1.0.0", "pair@2.0.0"})["shape_compatibility"], 0.75);
  ask({"model", "validate", "pair", "1.0.0", "--p50", "1", "--p99", "10", "--accuracy", "0.75"});
  ask({"model", "validate", "pair", "2.0.0", "--p50", "1", "--p99", "15", "--accuracy", "0.5"});
  EXPECT_EQ(ask({"model", "rollback-priority", "pair", "2.0.0", "1.0.0"})["rollback_priority"], 50);
  EXPECT_EQ(ask({"model", "versions", "pair"}), json({"1.0.0", "2.0.0"}));
  EXPECT_EQ(ask({"model", "best", "pair"}), json::object());  // none in Canary or Production
}

TEST_F(ProgramTest, IdsThatAreWordsOfTheCommandLineAreIds) {
  ask({"model", "register", "list", "1.0.0", "--tag", "note=--json"});
  EXPECT_EQ(ask({"model", "get", "list"})["tags"]["note"], "--json");
  ask({"model", "register", "pool", "1.0.0"});
  EXPECT_EQ(ask({"model", "versions", "pool"}), json::array({"1.0.0"}));
  ask({"model", "register", "[a,b]", "1.0.0"});
  EXPECT_EQ(ask({"model", "get", "[a,b]"})["model_id"], "[a,b]");
}

TEST_F(ProgramTest, ImportsAFileOnceAndAgain) {
  const std::string path = std::string(TENSORFORGE_TEST_DATA) + "/models.csv";
  const json first = ask({"model", "import", path, "--reason", "first"});
  EXPECT_EQ(first["registered"], 16);
  expect_change(first);
  const json again = ask({"model", "import", path});
  EXPECT_EQ(again["registered"], 0);
  EXPECT_EQ(again["already_registered"], 16);
  const json model = ask({"model", "get", "resnet50", "2.0.0"});
  EXPECT_EQ(model["tags"]["accuracy_top1"], "80.858");
  EXPECT_EQ(model["input_shape"], json({1, 3, 224, 224}));

  const Ran lines = run({"model", "import", "-", "--jsonl"}, "lines/a,1.0.0,f,1,1,5,1\nlines/b,1.0.0,f,1,1,5,1\n");
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 2);
  const json line = json::parse(lines.out.substr(0, lines.out.find('\n')));
  EXPECT_EQ(line["model_id"], "lines/a");
  expect_change(line);

  const Ran refused = run({"model", "import", "-", "--json"}, "a@b,1.0.0,f,1,1,5,1\nimported/ok,1.0.0,f,1,1,5,1\n");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_EQ(json::parse(refused.out)["registered"], 1);
  EXPECT_EQ(json::parse(refused.out)["refused"], 1);
  EXPECT_THAT(refused.err, HasSubstr("INVALID_ARGUMENT"));
}

TEST_F(ProgramTest, ListsFollowPagesUpToTheLimit) {
  std::string csv;
  for (int i = 0; i < 1'100; ++i) csv += "page/" + std::to_string(10'000 + i) + ",1.0.0,f,1,1,5,\n";
  EXPECT_EQ(ask({"model", "import", "-"}, csv)["registered"], 1'100);
  const json all = ask({"model", "list"});
  EXPECT_GE(all.size(), 1'100U);
  EXPECT_EQ(ask({"model", "list", "--limit", "1050"}).size(), 1'050U);
  EXPECT_EQ(ask({"model", "list", "--limit", "3"}).size(), 3U);
  EXPECT_EQ(ask({"model", "list", "--limit", "0"}), json::array());
  const Ran lines = run({"--jsonl", "model", "find", "Registered", "--limit", "1001"});
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 1'001);
  EXPECT_TRUE(json::accept(lines.out.substr(0, lines.out.find('\n'))));
}

TEST_F(ProgramTest, ConditionsAreChecked) {
  const json made = ask({"model", "register", "if", "1.0.0", "--if-sequence", "0"});
  expect_refused({"model", "register", "if", "2.0.0", "--if-sequence", "0"}, 1, "ABORTED", "if");
  ask({"model", "register", "if", "2.0.0", "--if-sequence", std::to_string(made["sequence"].get<int>())});
}

TEST_F(ProgramTest, ModelVerbsSayWhatIsWrong) {
  const struct {
    Arguments arguments;
    int exit_code;
    std::string code, part;
  } cases[] = {
      {{"model", "get", "nobody"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "versions", "nobody"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "validation", "nobody", "1.0.0"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "transition", "nobody", "1.0.0", "Canary"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "validate", "nobody", "1.0.0", "--p50", "1", "--p99", "1", "--accuracy", "1"},
       1,
       "NOT_FOUND",
       "nobody"},
      {{"model", "sla", "nobody", "1.0.0", "--max-latency", "1", "--min-accuracy", "1"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "compat", "nobody@1.0.0", "nobody@1.0.0"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "rollback-priority", "nobody", "1.0.0", "1.0.0"}, 1, "NOT_FOUND", "nobody"},
      {{"model", "register", "a@b", "1.0.0"}, 1, "INVALID_ARGUMENT", "a@b"},
      {{"model", "register", "x", "01.0.0"}, 2, "INVALID_ARGUMENT", "\"01.0.0\" is no version"},
      {{"model", "register", "x", "1.0.0", "--size", "big"}, 2, "INVALID_ARGUMENT", "--size: \"big\" is no size"},
      {{"model", "register", "x", "1.0.0", "--input-shape", "a"}, 2, "INVALID_ARGUMENT", "no shape"},
      {{"model", "register", "x", "1.0.0", "--tag", "a=1", "--tag", "a=2"}, 2, "INVALID_ARGUMENT", "given twice"},
      {{"model", "register", "x", "1.0.0", "--tag", "a"}, 2, "INVALID_ARGUMENT", "no KEY=VALUE"},
      {{"model", "register", "x", "1.0.0", "--if-sequence", "-1"}, 2, "INVALID_ARGUMENT", "not a whole number"},
      {{"model", "register", "x"}, 2, "INVALID_ARGUMENT", "VERSION is required"},
      {{"model", "get", "x", "1.0.0", "more"}, 2, "INVALID_ARGUMENT", "more"},
      {{"model", "transition", "x", "1.0.0", "Flying"}, 2, "INVALID_ARGUMENT", "none of: Registered, Validating"},
      {{"model", "find", "Flying"}, 2, "INVALID_ARGUMENT", "none of: Registered, Validating"},
      {{"model", "validate", "x", "1.0.0", "--p50", "1", "--accuracy", "1"}, 2, "INVALID_ARGUMENT", "--p99"},
      {{"model", "validate", "x", "1.0.0", "--accuracy", "1"}, 2, "INVALID_ARGUMENT", "--samples"},
      {{"model", "compat", "x@1", "x@1.0.0"}, 2, "INVALID_ARGUMENT", "\"1\" is no version"},
      {{"model", "best"}, 2, "INVALID_ARGUMENT", "ID is required"},
      {{"model", "import", "/nonexistent"}, 2, "INVALID_ARGUMENT", "cannot read"},
      {{"model", "list", "--limit", "ten"}, 2, "INVALID_ARGUMENT", "--limit"},
      {{"model", "fly"}, 2, "INVALID_ARGUMENT", "\"fly\" is unknown after tensorforge model: use one of"},
      {{"model"}, 2, "INVALID_ARGUMENT", "tensorforge model needs one of: "},
      {{"fly"}, 2, "INVALID_ARGUMENT", "\"fly\" is unknown after tensorforge: use one of"},
  };
  for (const auto& [arguments, exit_code, code, part] : cases) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    expect_refused(arguments, exit_code, code, part);
  }
}

// ---- pool

TEST_F(ProgramTest, AllocatesAndFollowsABlockThroughItsStates) {
  expect_change(ask({"pool", "create", "gpu/life", "--memory", "1MiB", "--clock-mhz", "1215", "--compute", "8.6"}));
  const json block = ask({"pool", "alloc", "gpu/life", "t", "100KiB", "--align", "256", "--priority", "-2"});
  expect_change(block);
  EXPECT_EQ(block["offset"], 0);
  EXPECT_EQ(block["actual_size"], 102'400);
  const std::string id = block["block_id"];
  expect_change(ask({"pool", "cache", "gpu/life", id}));
  expect_change(ask({"pool", "pin", "gpu/life", id}));
  EXPECT_EQ(ask({"pool", "block", "gpu/life", id})["status"], "Pinned");
  EXPECT_EQ(ask({"pool", "block", "gpu/life", id})["priority"], -2);
  expect_change(ask({"pool", "unpin", "gpu/life", id}));
  expect_change(ask({"pool", "touch", "gpu/life", id}));
  EXPECT_EQ(ask({"pool", "tensor", "gpu/life", "t"}).size(), 1U);
  const json blocks = ask({"pool", "blocks", "gpu/life"});
  EXPECT_EQ(texts(blocks, "status"), (Arguments{"Allocated", "Free"}));
  EXPECT_FALSE(blocks[1].contains("tensor_id"));
  const json stats = ask({"pool", "stats", "gpu/life"});
  EXPECT_EQ(stats["allocated_bytes"], 102'400);
  for (const char* key : {"memory_pressure", "should_defragment", "seconds_to_oom"})
    EXPECT_TRUE(stats.contains(key)) << key;
  expect_change(ask({"pool", "free", "gpu/life", id}));
  const Ran twice = run({"pool", "free", "gpu/life", id});
  EXPECT_EQ(twice.exit_code, 1);
  EXPECT_THAT(twice.err, StartsWith("error: NOT_FOUND"));
  json device;
  for (const json& pool : ask({"pool", "list"})) {
    if (pool["device_id"] == "gpu/life") device = pool;
  }
  EXPECT_EQ(device["total_memory"], 1'048'576);
  EXPECT_EQ(device["compute_capability"], "8.6");
}

TEST_F(ProgramTest, EvictsAndDefragments) {
  ask({"pool", "create", "gpu/frag", "--memory", "4KiB"});
  Arguments ids;
  for (int i = 0; i < 4; ++i) ids.push_back(ask({"pool", "alloc", "gpu/frag", "t", "1KiB"})["block_id"]);
  ask({"pool", "cache", "gpu/frag", ids[0]});
  const json evicted = ask({"pool", "evict", "gpu/frag", "1KiB"});
  EXPECT_EQ(evicted["freed_bytes"], 1'024);
  expect_change(evicted);
  EXPECT_EQ(ask({"pool", "evict", "gpu/frag", "1KiB"})["freed_bytes"], 0);
  const json plan = ask({"pool", "defrag", "gpu/frag", "--dry-run"});
  EXPECT_EQ(plan["moved"], 3);
  const json done = ask({"pool", "defrag", "gpu/frag"});
  expect_change(done);
  EXPECT_EQ(done["moves"], plan["moves"]);
  EXPECT_EQ(done["moves"][0], json({{"block_id", ids[1]}, {"from", 1'024}, {"to", 0}, {"size", 1'024}}));
  EXPECT_EQ(ask({"pool", "defrag", "gpu/frag"})["moved"], 0);
}

TEST_F(ProgramTest, RepeatsUntilNothingIsLeftToDo) {
  ask({"pool", "create", "gpu/many", "--memory", "8KiB"});
  std::string trace;
  for (int i = 0; i < 1'200; ++i) trace += "a," + std::to_string(i) + ",4," + std::to_string(i) + "\n";
  for (int i = 0; i < 1'200; ++i) trace += "f," + std::to_string(i) + ",,2000\n";
  ask({"pool", "replay", "gpu/many", "-", "--cache"}, trace);
  const json evicted = ask({"pool", "evict", "gpu/many", "4400", "--if-sequence", "1000000"});
  EXPECT_EQ(evicted["freed_bytes"], 4'400);  // more than the 1,000 blocks that one command evicts
  EXPECT_EQ(ask({"pool", "stats", "gpu/many"})["cached_bytes"], 400);
  EXPECT_EQ(ask({"pool", "defrag", "gpu/many"})["moved"], 100);
}

TEST_F(ProgramTest, ReplaysARealTrace) {
  const std::string trace = std::string(TENSORFORGE_TEST_DATA) + "/traces/minimalloc_A.csv";
  ask({"pool", "create", "gpu/trace", "--memory", "2MiB"});
  const json report = ask({"pool", "replay", "gpu/trace", trace});
  expect_change(report);
  EXPECT_EQ(report["operations"], 308);
  EXPECT_EQ(report["allocations"], 154);
  EXPECT_EQ(report["releases"], 154);
  EXPECT_EQ(report["failures"], 0);
  EXPECT_EQ(report["evictions"], 0);
  EXPECT_EQ(report["peak_bytes"], 1'048'576);  // as the trace's head says
  EXPECT_GT(report["max_fragmentation_ratio"], 0.0);
  EXPECT_EQ(report["final_fragmentation_ratio"], 0.0);
  EXPECT_EQ(ask({"pool", "stats", "gpu/trace"})["free_bytes"], 2'097'152);

  ask({"pool", "create", "gpu/tight", "--memory", "512KiB"});
  const json cached = ask({"pool", "replay", "gpu/tight", trace, "--cache"});
  EXPECT_GT(cached["failures"], 0);
  EXPECT_GT(cached["evictions"], 0);
  EXPECT_EQ(cached["allocations"].get<int>() + cached["failures"].get<int>(), 154);
  EXPECT_LE(cached["peak_bytes"], 524'288);
}

TEST_F(ProgramTest, PoolVerbsSayWhatIsWrong) {
  ask({"pool", "create", "gpu/wrong", "--memory", "1KiB"});
  const std::string trace = directory_->path() / "bad.csv";
  std::ofstream(trace) << "a,1,10,0\nf,2,,1\n";
  const struct {
    Arguments arguments;
    int exit_code;
    std::string code, part;
  } cases[] = {
      {{"pool", "create", "gpu/wrong", "--memory", "1KiB"}, 1, "ALREADY_EXISTS", "gpu/wrong"},
      {{"pool", "create", "gpu/none", "--memory", "0"}, 1, "INVALID_ARGUMENT", "0"},
      {{"pool", "stats", "nowhere"}, 1, "NOT_FOUND", "nowhere"},
      {{"pool", "blocks", "nowhere"}, 1, "NOT_FOUND", "nowhere"},
      {{"pool", "alloc", "nowhere", "t", "1"}, 1, "NOT_FOUND", "nowhere"},
      {{"pool", "alloc", "gpu/wrong", "t", "2KiB"}, 1, "RESOURCE_EXHAUSTED", "larger than the pool"},
      {{"pool", "alloc", "gpu/wrong", "t", "1", "--align", "3"}, 1, "INVALID_ARGUMENT", "3"},
      {{"pool", "free", "gpu/wrong", "free-0"}, 1, "FAILED_PRECONDITION", "free-0"},
      {{"pool", "pin", "gpu/wrong", "b-00000000-1"}, 1, "NOT_FOUND", "b-00000000-1"},
      {{"pool", "block", "gpu/wrong", "nonsense"}, 1, "NOT_FOUND", "nonsense"},
      {{"pool", "evict", "nowhere", "1"}, 1, "NOT_FOUND", "nowhere"},
      {{"pool", "defrag", "nowhere"}, 1, "NOT_FOUND", "nowhere"},
      {{"pool", "replay", "nowhere", std::string(TENSORFORGE_TEST_DATA) + "/traces/minimalloc_A.csv"},
       1,
       "NOT_FOUND",
       "nowhere"},
      {{"pool", "replay", "gpu/wrong", trace}, 2, "INVALID_ARGUMENT", "line 2: \"2\" holds nothing to free"},
      {{"pool", "create", "x"}, 2, "INVALID_ARGUMENT", "--memory is required"},
      {{"pool", "create", "x", "--memory", "1KiB", "--compute", "8"}, 2, "INVALID_ARGUMENT", "no compute capability"},
      {{"pool", "alloc", "gpu/wrong", "t", "-5"}, 2, "INVALID_ARGUMENT", "-5"},
      {{"pool", "alloc", "gpu/wrong", "t", "1", "--priority", "high"}, 2, "INVALID_ARGUMENT", "--priority"},
  };
  for (const auto& [arguments, exit_code, code, part] : cases) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    expect_refused(arguments, exit_code, code, part);
  }
}

// ---- checkpoint

TEST_F(ProgramTest, KeepsTheCheckpointsOfARun) {
  const auto save = [](const std::string& step, const std::string& type, const std::string& loss) {
    const json made = ask(
        {"checkpoint", "create", "run/a", "--epoch", "1", "--step", step, "--type", type, "--metric", "loss=" + loss});
    expect_change(made);
    const std::string id = made["checkpoint_id"];
    expect_change(ask({"checkpoint", "complete", id, "--size", "1MiB", "--path", "s3://a/" + step}));
    return id;
  };
  const std::string full = save("100", "full", "0.5"), delta = save("200", "incremental", "0.25");
  const json meta = ask({"checkpoint", "get", delta});
  EXPECT_EQ(meta["parent_id"], full);
  EXPECT_EQ(meta["checkpoint_type"], "Incremental");
  EXPECT_EQ(meta["state"], "Complete");
  EXPECT_EQ(meta["metrics"], json({{"loss", 0.25}}));
  EXPECT_EQ(texts(ask({"checkpoint", "list", "run/a"}), "checkpoint_id"), (Arguments{full, delta}));
  EXPECT_EQ(ask({"checkpoint", "latest", "run/a"})["checkpoint_id"], delta);
  EXPECT_EQ(ask({"checkpoint", "restore-point", "run/a"})["checkpoint_id"], delta);
  EXPECT_EQ(ask({"checkpoint", "restore-point", "run/a", "--prefer-full"})["checkpoint_id"], full);
  EXPECT_EQ(ask({"checkpoint", "restore-point", "run/a", "--max-step", "150"})["checkpoint_id"], full);
  const json chain = ask({"checkpoint", "chain", delta});
  EXPECT_EQ(chain["length"], 2);
  EXPECT_EQ(chain["size_bytes"], 2'097'152);
  EXPECT_EQ(texts(chain["checkpoints"], "checkpoint_id"), (Arguments{full, delta}));
  EXPECT_GT(chain["estimated_restore_ms"], 0);
  EXPECT_EQ(ask({"checkpoint", "validate", delta})["valid"], true);
  EXPECT_EQ(ask({"checkpoint", "due", "run/a", "--step", "299", "--interval", "100"})["due"], false);
  EXPECT_EQ(ask({"checkpoint", "due", "run/a", "--step", "300", "--interval", "100"})["due"], true);
  EXPECT_EQ(texts(ask({"checkpoint", "find", "run/a", "loss", "0.4"}), "checkpoint_id"), (Arguments{delta}));
  EXPECT_EQ(texts(ask({"checkpoint", "find", "run/a", "loss", "0.4", "--descending"}), "checkpoint_id"),
            (Arguments{full}));

  expect_refused({"checkpoint", "remove", full}, 1, "FAILED_PRECONDITION", delta);
  expect_change(ask({"checkpoint", "corrupt", full}));
  const Ran invalid = run({"checkpoint", "validate", delta, "--json"});
  EXPECT_EQ(invalid.exit_code, 4);
  EXPECT_EQ(json::parse(invalid.out)["valid"], false);
  expect_change(ask({"checkpoint", "remove", delta}));
  EXPECT_EQ(ask({"checkpoint", "get", delta})["state"], "Deleted");
}

TEST_F(ProgramTest, CollectsWhatThePolicyLetsGo) {
  EXPECT_EQ(ask({"checkpoint", "policy", "get", "run/gc"})["inherited"], true);
  expect_change(ask({"checkpoint", "policy", "set", "run/gc", "--max-checkpoints-per-run", "1", "--metric-key", "acc",
                     "--metric-descending"}));
  const json policy = ask({"checkpoint", "policy", "get", "run/gc"});
  EXPECT_EQ(policy["max_checkpoints_per_run"], 1);
  EXPECT_EQ(policy["metric_ascending"], false);
  EXPECT_EQ(policy["inherited"], false);
  EXPECT_EQ(ask({"checkpoint", "policy", "get"})["max_checkpoints_per_run"], 0);
  Arguments ids;
  for (const char* step : {"1", "2", "3"}) {
    ids.push_back(ask({"checkpoint", "create", "run/gc", "--epoch", "0", "--step", step})["checkpoint_id"]);
    ask({"checkpoint", "complete", ids.back(), "--size", "10", "--path", std::string("/ck/") + step});
  }
  const json collected = ask({"checkpoint", "gc"});
  expect_change(collected);
  Arguments of_this_run;
  for (const json& deleted : collected["deleted"]) {
    for (const char* key : {"checkpoint_id", "storage_path", "size_bytes"}) EXPECT_TRUE(deleted.contains(key)) << key;
    if (deleted["training_run_id"] == "run/gc") of_this_run.push_back(deleted["storage_path"]);
  }
  EXPECT_THAT(of_this_run, ::testing::UnorderedElementsAre("/ck/1", "/ck/2"));
  EXPECT_EQ(ask({"checkpoint", "gc"})["deleted"], json::array());
}

TEST_F(ProgramTest, CheckpointVerbsSayWhatIsWrong) {
  const std::string nobody = "ck-00000000-9";
  const struct {
    Arguments arguments;
    int exit_code;
    std::string code, part;
  } cases[] = {
      {{"checkpoint", "get", nobody}, 1, "NOT_FOUND", nobody},
      {{"checkpoint", "complete", nobody, "--size", "1", "--path", "p"}, 1, "NOT_FOUND", nobody},
      {{"checkpoint", "corrupt", nobody}, 1, "NOT_FOUND", nobody},
      {{"checkpoint", "remove", nobody}, 1, "NOT_FOUND", nobody},
      {{"checkpoint", "chain", nobody}, 1, "NOT_FOUND", nobody},
      {{"checkpoint", "validate", nobody}, 1, "NOT_FOUND", nobody},
      {{"checkpoint", "latest", "run/nobody"}, 1, "NOT_FOUND", "run/nobody"},
      {{"checkpoint", "restore-point", "run/nobody"}, 1, "NOT_FOUND", "run/nobody"},
      {{"checkpoint", "create", "run/x", "--epoch", "1", "--step", "1", "--type", "incremental"},
       1,
       "FAILED_PRECONDITION",
       "run/x"},
      {{"checkpoint", "create", "run/x", "--epoch", "1", "--step", "1", "--metric", "loss=nan"},
       1,
       "INVALID_ARGUMENT",
       "loss"},
      {{"checkpoint", "create", "run/x", "--epoch", "1", "--step", "1", "--metric", "loss=low"},
       2,
       "INVALID_ARGUMENT",
       "\"low\" is not a number"},
      {{"checkpoint", "create", "run/x", "--epoch", "1", "--step", "1", "--type", "half"},
       2,
       "INVALID_ARGUMENT",
       "none of: Full"},
      {{"checkpoint", "create", "run/x", "--epoch", "4294967296", "--step", "1"}, 2, "INVALID_ARGUMENT", "--epoch"},
      {{"checkpoint", "create", "run/x", "--step", "1"}, 2, "INVALID_ARGUMENT", "--epoch is required"},
      {{"checkpoint", "complete", nobody, "--size", "1"}, 2, "INVALID_ARGUMENT", "--path is required"},
      {{"checkpoint", "find", "run/x", "loss", "low"}, 2, "INVALID_ARGUMENT", "THRESHOLD"},
      {{"checkpoint", "policy", "set", "--keep-best-n", "-1"}, 2, "INVALID_ARGUMENT", "--keep-best-n"},
      {{"checkpoint", "policy"}, 2, "INVALID_ARGUMENT", "needs one of: get, set"},
  };
  for (const auto& [arguments, exit_code, code, part] : cases) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    expect_refused(arguments, exit_code, code, part);
  }
}

// ---- log and server

TEST_F(ProgramTest, ShowsTheLogOfAnEntity) {
  ask({"--actor", "ann", "model", "register", "audited", "1.0.0", "--framework", "onnx"});
  ask({"--actor", "bob", "model", "transition", "audited", "1.0.0", "Validating", "--reason", "nightly"});
  const json history = ask({"log", "history", "model/audited"});
  ASSERT_EQ(history.size(), 2U);
  EXPECT_EQ(history[0]["actor"], "ann");
  EXPECT_EQ(history[0]["event"], "ModelRegistered");
  EXPECT_EQ(history[1]["actor"], "bob");
  EXPECT_EQ(history[1]["event"], "StateTransitioned");
  EXPECT_EQ(history[1]["reason"], "nightly");
  EXPECT_EQ(history[1]["streams"], json::array({"model/audited"}));
  EXPECT_EQ(ask({"log", "history", "model/audited", "--limit", "1"}).size(), 1U);

  const Ran text = run({"log", "history", "model/audited"});
  EXPECT_THAT(text.out, StartsWith("SEQUENCE"));
  EXPECT_THAT(text.out, HasSubstr("version=1.0.0 from=Registered to=Validating"));
  EXPECT_THAT(text.out, HasSubstr("nightly"));
  EXPECT_EQ(ask({"log", "tail", "-n", "1"})[0]["sequence"], history[1]["sequence"]);
  const json from = ask({"log", "tail", "--from", std::to_string(history[0]["sequence"].get<int>())});
  EXPECT_EQ(from.size(), 2U);
}

TEST_F(ProgramTest, ReplayGivesTheDigestOfTheService) {
  ask({"model", "register", "digested", "1.0.0"});
  const json status = ask({"server", "status"});
  for (const char* key : {"sequence", "anchored_sequence", "state_digest", "incarnation", "log_id", "verified_to"}) {
    EXPECT_TRUE(status.contains(key)) << key;
  }
  const std::string sequence = std::to_string(status["sequence"].get<int>());
  ask({"model", "register", "digested", "2.0.0"});
  const json then = ask({"log", "replay", "--until", sequence}), now = ask({"log", "replay"});
  EXPECT_EQ(then["state_digest"], status["state_digest"]);
  EXPECT_EQ(then["model_versions"], status["model_versions"]);
  EXPECT_NE(now["state_digest"], status["state_digest"]);
  const json verified = ask({"log", "verify"});
  EXPECT_EQ(verified["verified"], true);
  EXPECT_GE(verified["sequence"], status["sequence"]);
}

TEST_F(ProgramTest, ASnapshotIsTakenOfTheStateNow) {
  const json change = ask({"model", "register", "pictured", "1.0.0"});
  const json taken = ask({"server", "snapshot"});
  EXPECT_EQ(taken["sequence"], change["sequence"]);
  EXPECT_GT(taken["bytes"], 0);
  EXPECT_EQ(ask({"server", "status"})["snapshot_sequence"], taken["sequence"]);
  const Ran text = run({"server", "snapshot"});
  EXPECT_THAT(text.out, HasSubstr("sequence"));
}

TEST_F(ProgramTest, LogVerbsSayWhatIsWrong) {
  const struct {
    Arguments arguments;
    int exit_code;
    std::string code, part;
  } cases[] = {
      {{"log", "show", "0"}, 1, "NOT_FOUND", "record 0"},
      {{"log", "show", "99999999"}, 1, "NOT_FOUND", "99999999"},
      {{"log", "show", "one"}, 2, "INVALID_ARGUMENT", "SEQUENCE"},
      {{"log", "history", "nonsense"}, 1, "INVALID_ARGUMENT", "nonsense"},
      {{"log", "replay", "--until", "99999999"}, 2, "INVALID_ARGUMENT", "the log ends at"},
      {{"log", "tail", "--follow", "--data-dir", "/tmp"}, 2, "INVALID_ARGUMENT", "--follow"},
      {{"log", "verify", "--data-dir", (directory_->path() / "data").string()}, 2, "ABORTED", "data"},
      {{"log", "tail", "--data-dir", (directory_->path() / "nothing").string()}, 2, "NOT_FOUND", "nothing"},
      {{"bench", "--op", "fly"}, 2, "INVALID_ARGUMENT", "none of: register, get"},
      {{"bench", "--op", "get", "--clients", "0"}, 2, "INVALID_ARGUMENT", "--clients"},
      {{"bench"}, 2, "INVALID_ARGUMENT", "--op is required"},
  };
  for (const auto& [arguments, exit_code, code, part] : cases) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    expect_refused(arguments, exit_code, code, part);
  }
}

TEST_F(ProgramTest, TheClockIsAcceptedOnlyWhenItIsNotTrusted) {
  const json answer = ask({"server", "accept-clock", "--reason", "checked"});
  expect_change(answer);
}

TEST_F(ProgramTest, BenchMeasuresEachOperationWithoutAnError) {
  for (const char* operation : {"register", "get", "alloc", "checkpoint", "mixed"}) {
    SCOPED_TRACE(operation);
    const json report =
        ask({"bench", "--op", operation, "--clients", "3", "--depth", "4", "--seconds", "1", "--keys", "50"});
    EXPECT_EQ(report["op"], operation);
    EXPECT_EQ(report["errors"], 0);
    EXPECT_GT(report["operations"], 0);
    for (const char* key : {"clients", "depth", "ops_per_second", "p50_us", "p99_us", "p999_us", "group_commit_p50_us",
                            "group_commit_p99_us"}) {
      EXPECT_TRUE(report.contains(key)) << key;
    }
  }
}

// ---- without the service of the suite

TEST(StoppedServiceTest, LogVerbsReadTheDataDirectory) {
  const TemporaryDirectory directory;
  const std::string data = directory.path() / "data";
  json status;
  {
    Daemon daemon(daemon_arguments(data));
    ASSERT_TRUE(daemon.ready()) << daemon.errors();
    ASSERT_EQ(
        tensorforge_on(daemon.ready()->address, {"model", "register", "kept", "1.0.0", "--reason", "r"}).exit_code, 0);
    ASSERT_EQ(tensorforge_on(daemon.ready()->address, {"pool", "create", "gpu", "--memory", "1KiB"}).exit_code, 0);
    status = json::parse(tensorforge_on(daemon.ready()->address, {"--json", "server", "status"}).out);
    EXPECT_EQ(daemon.stop(), 0);
  }
  const auto offline = [&](Arguments arguments) {
    arguments.insert(arguments.begin(), {TENSORFORGE_PROGRAM, "--json"});
    arguments.insert(arguments.end(), {"--data-dir", data});
    const Ran ran = run_program(arguments);
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
    return json::parse(ran.out, nullptr, false);
  };
  EXPECT_EQ(offline({"log", "replay"})["state_digest"], status["state_digest"]);
  EXPECT_EQ(offline({"log", "verify"})["verified"], true);
  const json history = offline({"log", "history", "model/kept"});
  ASSERT_EQ(history.size(), 1U);
  EXPECT_EQ(history[0]["reason"], "r");
  EXPECT_EQ(offline({"log", "tail"}).back()["event"], "PoolCreated");
  EXPECT_EQ(offline({"log", "show", "1"})["event"], "IncarnationStarted");
}

TEST(StoppedServiceTest, ADamagedLogIsExitCodeFour) {
  const TemporaryDirectory directory;
  const std::filesystem::path data = directory.path() / "data";
  {
    Daemon daemon(daemon_arguments(data));
    ASSERT_TRUE(daemon.ready()) << daemon.errors();
    ASSERT_EQ(tensorforge_on(daemon.ready()->address, {"model", "register", "kept", "1.0.0"}).exit_code, 0);
    daemon.stop();
  }
  std::filesystem::remove(data / "db" / "CURRENT");
  for (const char* verb : {"verify", "tail"}) {
    const Ran ran = run_program({TENSORFORGE_PROGRAM, "log", verb, "--data-dir", data.string()});
    EXPECT_EQ(ran.exit_code, 4) << ran.err;
    EXPECT_THAT(ran.err, StartsWith("error: DATA_LOSS: "));
  }
}

TEST(NoServiceTest, NobodyThereIsExitCodeThree) {
  for (const Arguments& arguments : {Arguments{"server", "status"}, {"model", "list"}, {"bench", "--op", "get"}}) {
    const Ran ran = tensorforge_on("127.0.0.1:1", arguments);  // tcpmux: nobody has it
    EXPECT_EQ(ran.exit_code, 3) << ran.err;
    EXPECT_THAT(ran.err, StartsWith("error: UNAVAILABLE: "));
    EXPECT_THAT(ran.err, HasSubstr("127.0.0.1:1"));
  }
  EXPECT_EQ(tensorforge_on("nowhere", {"server", "status"}).exit_code, 2);
}

TEST(HelpTest, EveryNounAndVerbHasHelpWithAnExample) {
  const struct {
    std::string noun;
    Arguments verbs;
  } nouns[] = {
      {"model",
       {"compat", "sla", "register", "get", "versions", "list", "transition", "validate", "validation", "find", "best",
        "rollback-priority", "import"}},
      {"pool",
       {"create", "list", "stats", "blocks", "block", "tensor", "alloc", "free", "cache", "pin", "unpin", "touch",
        "evict", "defrag", "replay"}},
      {"checkpoint",
       {"create", "complete", "corrupt", "get", "list", "latest", "restore-point", "chain", "validate", "due", "find",
        "gc", "policy", "remove"}},
      {"log", {"tail", "show", "history", "replay", "verify"}},
      {"server", {"status", "snapshot", "accept-clock"}},
      {"bench", {}},
      {"crashtest", {}},
  };
  const auto expect_help = [](Arguments arguments, const std::string& example) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    arguments.insert(arguments.begin(), TENSORFORGE_PROGRAM);
    arguments.push_back("--help");
    const Ran ran = run_program(arguments);
    EXPECT_EQ(ran.exit_code, 0);
    EXPECT_THAT(ran.out, HasSubstr("Example:\n  " + example));
  };
  expect_help({}, "tensorforge");
  for (const auto& [noun, verbs] : nouns) {
    expect_help({noun}, "tensorforge");
    for (const std::string& verb : verbs) expect_help({noun, verb}, "tensorforge");
  }
  EXPECT_EQ(run_program({TENSORFORGE_PROGRAM, "--version"}).out, "tensorforge " TENSORFORGE_VERSION "\n");
}

}  // namespace
}  // namespace tensorforge::cli
