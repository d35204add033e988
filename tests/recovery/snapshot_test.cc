// Snapshots of the real service: killed at every step of one, started from one, and what lies before it damaged.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "storage/snapshot_file.h"
#include "tests/recovery/recovery_test.h"

namespace tensorforge {
namespace {

namespace fs = std::filesystem;
using client::Answer;
using client::Client;
using test::Daemon;
using test::Load;
using test::pool_creation;
using test::registration;
using test::status_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class SnapshotTest : public test::RecoveryTest {
 protected:
  static result::SnapshotTaken take_snapshot(Client& client) {
    const Answer answer = client.call(query::TakeSnapshot{});
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    return answer.status.ok() ? std::get<result::SnapshotTaken>(answer.reply.result) : result::SnapshotTaken{};
  }
  static void fill(Client& client, const std::string& prefix, int count, std::size_t bytes = 0) {
    std::uint64_t state = 1;
    for (int i = 0; i < count; ++i) {
      registry::ModelMetadata model;
      model.model_id = fmt::format("{}{}", prefix, i);
      model.version = test::kV1;
      for (std::size_t tag = 0; tag * 2'000 < bytes; ++tag)
        model.tags[fmt::format("{}", tag)] = test::random_text(2'000, state);
      ASSERT_TRUE(client.call(SingleCommand(registry::Command(registry::RegisterModel{model}))).status.ok());
    }
  }
  std::vector<Sequence> snapshots() const { return storage::SnapshotStore(nullptr, data_.string()).list().value(); }
  std::string snapshot(Sequence sequence) const {
    return storage::SnapshotStore(nullptr, data_.string()).path(sequence);
  }
  static std::string loaded(Sequence sequence) { return fmt::format("snapshot {} is loaded", sequence); }
  static void wait_until_verified(Client& client) {
    while (status_of(client).verified_to < status_of(client).sequence) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void expect_same(const result::Status& after, const result::Status& before) {
    EXPECT_EQ(after.sequence, before.sequence);
    EXPECT_EQ(after.state_digest, before.state_digest);
    EXPECT_EQ(after.root, before.root);
    EXPECT_EQ(after.incarnation, before.incarnation);
  }
};

TEST_F(SnapshotTest, IsWhereTheNextStartGoesOnAndTheRestIsCheckedWhileServing) {
  auto daemon = start();
  auto client = connect();
  fill(*client, "a", 20);
  const result::SnapshotTaken taken = take_snapshot(*client);
  EXPECT_EQ(taken.bytes, fs::file_size(snapshot(taken.sequence)));
  fill(*client, "b", 5);
  const result::Status before = status_of(*client);
  EXPECT_EQ(before.snapshot_sequence, taken.sequence);
  daemon->kill();

  daemon = start();
  EXPECT_THAT(daemon->errors(), HasSubstr(loaded(taken.sequence)));
  client = connect();
  expect_same(status_of(*client), before);
  EXPECT_EQ(status_of(*client).snapshot_sequence, taken.sequence);
  wait_until_verified(*client);
  for (const std::string model : {"a0", "a19", "b4"}) {
    EXPECT_TRUE(client->call(query::GetModel{model, test::kV1}).status.ok()) << model;
  }
  EXPECT_EQ(client->call(registration("a3")).status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(client->call(registration("c")).status.ok());
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
}

TEST_F(SnapshotTest, KillsOnTheWayToOneLoseNothing) {
  start()->stop();
  for (const char* point : {"snapshot-written", "snapshot-synced", "snapshot-renamed", "snapshot-durable"}) {
    SCOPED_TRACE(point);
    auto daemon = start({}, {fmt::format("TENSORFORGE_CRASH_POINT={}:1", point)});
    auto client = connect();
    fill(*client, std::string(point) + "-", 20);
    const result::Status before = status_of(*client);
    client->submit(query::TakeSnapshot{}, [](const Answer&) {});
    ASSERT_EQ(daemon->wait(), -SIGKILL) << daemon->errors();
    const bool has_its_name = std::string(point) == "snapshot-renamed" || std::string(point) == "snapshot-durable";
    EXPECT_EQ(fs::exists(snapshot(before.sequence)), has_its_name);

    client.reset();
    daemon = start();
    if (has_its_name) {
      EXPECT_THAT(daemon->errors(), HasSubstr(loaded(before.sequence)));
    }
    client = connect();
    expect_same(status_of(*client), before);
    EXPECT_EQ(take_snapshot(*client).sequence, before.sequence);
    for (const auto& entry : fs::directory_iterator(data_ / "snapshots")) {
      EXPECT_THAT(entry.path().string(), Not(testing::EndsWith(".new"))) << "the next one clears up";
    }
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }
}

TEST_F(SnapshotTest, KillsUnderLoadBesideThemLoseNothingAndDoNothingTwice) {
  auto daemon = start();
  const auto client = connect(), asking = connect();
  ASSERT_TRUE(client->call(pool_creation()).status.ok());
  Load load(*client, "m", 32);
  for (int round = 0; round < 3; ++round) {
    load.wait_for_answers(300);
    take_snapshot(*asking);
    load.wait_for_answers(50);
    daemon->kill();
    daemon = start();
    EXPECT_THAT(daemon->errors(), HasSubstr("is loaded"));
  }
  load.stop();
  expect_all_there(*client, {&load});
  const result::Status before = status_of(*client);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  // The same without any of them.
  fs::rename(data_ / "snapshots", directory_.path() / "aside");
  daemon = start();
  EXPECT_THAT(daemon->errors(), Not(HasSubstr("is loaded")));
  expect_same(status_of(*client), before);
}

TEST_F(SnapshotTest, AreTakenByThemselvesWithSmallSnapshotEvents) {
  auto daemon = start({"--snapshot-events", "10"});
  auto client = connect();
  fill(*client, "a", 20);
  const result::Status before = status_of(*client);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  EXPECT_THAT(snapshots(), testing::Contains(before.sequence)) << "at the stop";
  client.reset();
  daemon = start({"--snapshot-events", "10"});
  EXPECT_THAT(daemon->errors(), HasSubstr(loaded(before.sequence)));
  client = connect();
  expect_same(status_of(*client), before);
  fill(*client, "b", 5);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  EXPECT_EQ(snapshots().back(), before.sequence) << "too few events since";
}

TEST_F(SnapshotTest, ThatIsDamagedIsPassedOverAndNobodyIsToldToRestoreABackup) {
  auto daemon = start();
  auto client = connect();
  fill(*client, "a", 20);
  const Sequence older = take_snapshot(*client).sequence;
  fill(*client, "b", 5);
  const Sequence newer = take_snapshot(*client).sequence;
  fill(*client, "c", 5);
  const result::Status before = status_of(*client);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();

  test::flip_bit(snapshot(newer), storage::kSnapshotHeadBytes + 40);
  client.reset();
  daemon = start();
  EXPECT_THAT(daemon->errors(), HasSubstr(fmt::format("snapshot {} is not used", newer)));
  EXPECT_THAT(daemon->errors(), HasSubstr(loaded(older)));
  EXPECT_THAT(daemon->errors(), Not(HasSubstr("backup")));
  client = connect();
  expect_same(status_of(*client), before);
  EXPECT_EQ(status_of(*client).snapshot_sequence, older) << "the other one is no use";
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
}

TEST_F(SnapshotTest, WhoseTreeIsNotTheLogsIsPassedOverAndNobodyIsToldToRestoreABackup) {
  auto daemon = start();
  auto client = connect();
  fill(*client, "a", 20);
  const Sequence taken = take_snapshot(*client).sequence;
  fill(*client, "b", 5);
  const result::Status before = status_of(*client);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();

  std::string bytes = test::read_bytes(snapshot(taken));
  storage::SnapshotHead head = storage::decode_snapshot_head(bytes).value();
  storage::MerkleFrontier foreign;
  for (Sequence i = 0; i < taken; ++i) foreign.append("another history");
  head.at.frontier = foreign;
  const std::string lie = storage::encode_snapshot_head(head);
  test::write_bytes(snapshot(taken), lie + bytes.substr(lie.size()));
  client.reset();
  daemon = start();
  EXPECT_THAT(daemon->errors(), HasSubstr(fmt::format("snapshot {} is not used", taken)));
  EXPECT_THAT(daemon->errors(), Not(HasSubstr("backup")));
  client = connect();
  expect_same(status_of(*client), before);
}

TEST_F(SnapshotTest, DoesNotHideDamageBeforeItWhichEndsTheServiceAndIsNamed) {
  auto daemon = start();
  auto client = connect();
  fill(*client, "large", 20, 12'000);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  client.reset();
  daemon = start();  // which moves them into a table
  client = connect();
  const Sequence taken = take_snapshot(*client).sequence;
  fill(*client, "b", 5);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  client.reset();

  bool damaged = false;
  for (const fs::path& table : test::files_like(data_ / "db", ".sst")) {
    const std::size_t at = test::read_bytes(table).find("TFCK");
    if (at == std::string::npos || fs::file_size(table) < 100'000) continue;
    test::flip_bit(table, at + 100'000);
    damaged = true;
  }
  ASSERT_TRUE(damaged) << "no table holds the chunks";
  daemon = start();
  EXPECT_THAT(daemon->errors(), HasSubstr(loaded(taken)));
  EXPECT_EQ(daemon->wait(), 2) << daemon->errors();
  EXPECT_THAT(daemon->errors(), HasSubstr("the chunk that holds sequence"));
  EXPECT_THAT(daemon->errors(), HasSubstr("restore from a backup"));
}

TEST_F(SnapshotTest, ThatCannotBeWrittenIsFinalAndHarmless) {
  auto daemon = start();
  auto client = connect();
  fill(*client, "large", 30, 12'000);
  const result::Status before = status_of(*client);
  const std::uintmax_t largest = test::bytes_without_zeros_behind(test::files_like(data_ / "db", ".log").back());
  ASSERT_GT(largest, 300'000U);
  const rlimit limit{largest / 2, largest / 2};
  ASSERT_EQ(prlimit(daemon->pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
  client->submit(query::TakeSnapshot{}, [](const Answer& answer) { EXPECT_FALSE(answer.status.ok()); });
  EXPECT_EQ(daemon->wait(), 3) << daemon->errors();
  EXPECT_THAT(daemon->errors(), HasSubstr("the disk failed"));
  EXPECT_THAT(snapshots(), IsEmpty());
  client.reset();
  daemon = start();
  expect_same(status_of(*connect()), before);
}

TEST_F(SnapshotTest, IsSkippedWithAWarningBeyondTheMemoryLimit) {
  const auto daemon = start({"--memory-limit", "1MiB", "--snapshot-events", "1"});
  const auto client = connect();
  fill(*client, "a", 5);
  EXPECT_TRUE(absl::IsResourceExhausted(client->call(query::TakeSnapshot{}).status));
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  EXPECT_THAT(daemon->errors(), HasSubstr("over the memory_limit of 1048576"));
  EXPECT_THAT(snapshots(), IsEmpty());
}

}  // namespace
}  // namespace tensorforge
