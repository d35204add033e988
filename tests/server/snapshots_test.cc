// Snapshots of a running service: when one is taken, what it holds, and what happens where it cannot be.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>

#include "server/server.h"
#include "service/fold.h"
#include "service/recover.h"
#include "service/snapshot.h"
#include "tests/support/commands.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/files.h"
#include "tests/support/running_server.h"

namespace tensorforge::server {
namespace {

using absl::StatusCode;
using client::Answer;
using client::Client;
using test::FaultFileSystem;
using test::registration;
using test::RunningServer;
using test::status_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class SnapshotsTest : public testing::Test {
 protected:
  /// Takes them by itself after so many events.
  Server::Options every(std::uint64_t events) const {
    Server::Options options;
    options.snapshots = SnapshotOptions{store_, events, 0, 0, 0};
    return options;
  }
  /// `commands` of them, in batches: quick, and each command is a record.
  static void register_models(Client& client, const std::string& prefix, std::size_t commands) {
    constexpr std::size_t kAtOnce = 100;
    for (std::size_t i = 0; i < commands; i += kAtOnce) {
      Batch batch;
      for (std::size_t j = i; j < std::min(commands, i + kAtOnce); ++j) {
        batch.items.push_back({std::get<SingleCommand>(registration(fmt::format("{}{}", prefix, j))), std::nullopt});
      }
      ASSERT_TRUE(client.call(Command(std::move(batch))).status.ok());
    }
  }
  static void wait_for_snapshot(Client& client, Sequence at_least) {
    // Asks now and then: the snapshot is to be taken meanwhile.
    while (status_of(client).snapshot_sequence < at_least) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  void expect_holds_what_the_log_gives(const storage::Log& log, Sequence sequence) const {
    const auto reader = store_.open(sequence);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const Result<service::State> loaded = service::load_snapshot(**reader);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    service::ReplayOptions options;
    options.until = sequence;
    const Result<service::State> replayed = service::recover_from({}, log, options);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_EQ(service::noted_digest(*loaded), service::noted_digest(*replayed));
  }
  std::vector<Sequence> snapshots() const { return store_.list().value(); }

  const test::TemporaryDirectory directory_{test::TemporaryDirectory::Medium::kMemory};
  const std::shared_ptr<FaultFileSystem> files_ = std::make_shared<FaultFileSystem>();
  const storage::SnapshotStore store_{files_, directory_.path().string()};
};

TEST_F(SnapshotsTest, AreTakenWhenAskedForOfTheStateThen) {
  RunningServer service(every(0));
  const auto client = service.connect();
  EXPECT_EQ(status_of(*client).snapshot_sequence, 0U);
  register_models(*client, "a", 10);
  const Answer answer = client->call(query::TakeSnapshot{});
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  const auto taken = std::get<result::SnapshotTaken>(answer.reply.result);
  EXPECT_EQ(taken.sequence, 11U);
  EXPECT_EQ(taken.bytes, std::filesystem::file_size(store_.path(11)));
  EXPECT_EQ(answer.reply.sequence, 11U);
  EXPECT_EQ(answer.reply.incarnation, 77U);
  EXPECT_EQ(status_of(*client).snapshot_sequence, 11U);
  expect_holds_what_the_log_gives(service.journal, 11);

  const Answer again = client->call(query::TakeSnapshot{});
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(std::get<result::SnapshotTaken>(again.reply.result), taken) << "nothing changed since";
  EXPECT_EQ(service.stop(), 0);
  EXPECT_THAT(snapshots(), ElementsAre(11)) << "none by itself";
}

TEST_F(SnapshotsTest, AreTakenWhileOthersWriteAndAgreeWithTheLog) {
  RunningServer service(every(0));
  constexpr int kWriters = 3, kCommands = 400;
  std::atomic<int> writing = kWriters;
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      const auto client = service.connect();
      for (int i = 0; i < kCommands; ++i) {
        EXPECT_TRUE(client->call(registration(fmt::format("w{}-{}", w, i))).status.ok());
      }
      --writing;
    });
  }
  client::ClientOptions options = service.client_options();
  options.request_timeout = std::chrono::minutes(5);
  const auto client = Client::connect(options).value();
  std::vector<Sequence> taken;
  for (bool is_last = false; !is_last;) {
    is_last = writing == 0;
    const Answer answer = client->call(query::TakeSnapshot{});
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    if (!answer.status.ok()) break;
    taken.push_back(std::get<result::SnapshotTaken>(answer.reply.result).sequence);
    expect_holds_what_the_log_gives(service.journal, taken.back());
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_TRUE(std::is_sorted(taken.begin(), taken.end()));
  EXPECT_EQ(taken.back(), 1U + kWriters * kCommands);
  EXPECT_EQ(service.stop(), 0);
}

TEST_F(SnapshotsTest, AreTakenByThemselvesWhereADigestIsNotedAndItIsTime) {
  constexpr std::size_t kModels = service::kNotedDigestInterval + 200;
  RunningServer service(every(50'000));
  const auto client = service.connect();
  for (const auto state : {registry::DeploymentState::Validating, registry::DeploymentState::Registered}) {
    client->call(registration("first"));
    EXPECT_TRUE(client->call(Command(test::transition("first", state))).status.ok()) << "more events than entities";
  }
  register_models(*client, "m", kModels);
  wait_for_snapshot(*client, 1);
  ASSERT_THAT(snapshots(), testing::SizeIs(1));
  const Sequence taken = snapshots().front();
  EXPECT_GE(taken, service::kNotedDigestInterval);
  EXPECT_LT(taken, service::kNotedDigestInterval + 100) << "at the first command end";
  EXPECT_TRUE(service.journal.noted_digest(taken).value().has_value());
  expect_holds_what_the_log_gives(service.journal, taken);
  EXPECT_EQ(service.stop(), 0);
  EXPECT_THAT(snapshots(), ElementsAre(taken)) << "at the stop it was not worth it";
}

TEST_F(SnapshotsTest, AreTakenAtAStartThatHadMuchToReplay) {
  RunningServer service(every(1));
  const auto client = service.connect();
  wait_for_snapshot(*client, 1);
  EXPECT_THAT(snapshots(), ElementsAre(1));
}

TEST_F(SnapshotsTest, AreTakenAtAStopWhereThatIsCheapAndWorthIt) {
  RunningServer service(every(50));
  register_models(*service.connect(), "m", 60);
  EXPECT_EQ(service.stop(), 0);
  EXPECT_THAT(snapshots(), ElementsAre(61));
  expect_holds_what_the_log_gives(service.journal, 61);
}

TEST_F(SnapshotsTest, AreNotTakenBeforeItIsTime) {
  RunningServer service(every(50));
  register_models(*service.connect(), "m", 40);
  EXPECT_EQ(service.stop(), 0);
  EXPECT_THAT(snapshots(), IsEmpty());
}

TEST_F(SnapshotsTest, AreRefusedByAServiceWithoutAPlaceForThem) {
  RunningServer service;
  EXPECT_EQ(service.connect()->call(query::TakeSnapshot{}).status.code(), StatusCode::kUnimplemented);
}

TEST_F(SnapshotsTest, AreNotTakenBeyondTheMemoryLimitAndTheServiceGoesOn) {
  Server::Options options = every(1);
  options.snapshots->memory_limit_bytes = 1;
  RunningServer service(options);
  const auto client = service.connect();
  const absl::Status status = client->call(query::TakeSnapshot{}).status;
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("memory_limit of 1"));
  EXPECT_TRUE(client->call(registration("m")).status.ok());
  EXPECT_EQ(service.stop(), 0);
  EXPECT_THAT(snapshots(), IsEmpty());
}

TEST_F(SnapshotsTest, AreNotTakenWhereTheDiskIsFullAndTheServiceGoesOn) {
  Server::Options options = every(0);
  options.snapshots->reserve_bytes = 1'000;
  RunningServer service(options);
  const auto client = service.connect();
  service.journal.set_free_bytes(999);
  const absl::Status status = client->call(query::TakeSnapshot{}).status;
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("under the reserve of 1000"));
  service.journal.set_free_bytes(1'000);
  EXPECT_TRUE(client->call(query::TakeSnapshot{}).status.ok());
  EXPECT_EQ(service.stop(), 0);
}

TEST_F(SnapshotsTest, OnADiskThatFailsAreFinal) {
  RunningServer service(every(0));
  const auto client = service.connect();
  ASSERT_TRUE(client->call(registration("a")).status.ok());
  files_->set_fault(
      test::fail_from(FaultFileSystem::Operation::kSync, ".new", 1, rocksdb::IOStatus::IOError("Input/output error")));
  client->submit(query::TakeSnapshot{}, [](const Answer& answer) { EXPECT_FALSE(answer.status.ok()); });
  EXPECT_EQ(service.wait(), 3);
}

TEST_F(SnapshotsTest, OfALogThatDoesNotVerifyEndTheService) {
  RunningServer service(every(0));
  const auto client = service.connect();
  register_models(*client, "a", 10);
  service.journal.damage(5);
  client->submit(query::TakeSnapshot{}, [](const Answer&) {});
  EXPECT_EQ(service.wait(), 2);
  EXPECT_THAT(snapshots(), IsEmpty());
}

TEST_F(SnapshotsTest, AtAStopOfALogThatDoesNotVerifyAreToldByTheExitCode) {
  RunningServer service(every(5));
  const auto client = service.connect();
  register_models(*client, "a", 10);
  service.journal.damage(5);
  EXPECT_EQ(service.stop(), 2);
  EXPECT_THAT(snapshots(), IsEmpty());
}

}  // namespace
}  // namespace tensorforge::server
