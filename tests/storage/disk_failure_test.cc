#include <algorithm>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "crashtest/simulated_disk.h"
#include "storage/data_directory.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/fault_file_system.h"

namespace tensorforge::storage {
namespace {

using rocksdb::IOStatus;
using test::fail_from;
using test::FaultFileSystem;
using testing::HasSubstr;
using Operation = FaultFileSystem::Operation;

class DiskFailureTest : public testing::Test {
 protected:
  OpenOptions options(Ack ack = Ack::kAnchor) const { return {directory_.path().string(), ack, false, disk_}; }

  std::size_t calls_of(Operation operation, const std::string& path_end) const {
    const std::vector<FaultFileSystem::Call> calls = disk_->calls();
    return static_cast<std::size_t>(std::count_if(calls.begin(), calls.end(), [&](const auto& call) {
      return call.operation == operation && call.path.ends_with(path_end);
    }));
  }

  void expect_final(Served& served) const {
    const absl::Status why = served.failure();
    EXPECT_TRUE(absl::IsUnavailable(why)) << why;
    EXPECT_EQ(exit_code(why), 3);
    EXPECT_THAT(std::string(why.message()), HasSubstr("the disk failed"));
    EXPECT_EQ(served.failures(), 1U);
    EXPECT_EQ(served.journal().close(), why);
  }

  TemporaryDirectory directory_;
  const std::shared_ptr<FaultFileSystem> disk_ = std::make_shared<FaultFileSystem>();
};

TEST_F(DiskFailureTest, OfAnyWriteOrSyncIsFinalAndLosesNothingAcknowledged) {
  const IOStatus io_error = IOStatus::IOError("Input/output error");
  const IOStatus no_space = IOStatus::NoSpace("No space left on device");
  const struct {
    const char* name;
    Operation operation;
    const char* path_end;
    IOStatus error;
  } cases[] = {
      {"sync of the write-ahead log", Operation::kSync, ".log", io_error},
      {"write of the write-ahead log", Operation::kWrite, ".log", io_error},
      {"no space for the write-ahead log", Operation::kWrite, ".log", no_space},
      {"sync of HEAD", Operation::kSync, "HEAD", io_error},
      {"write of HEAD", Operation::kWrite, "HEAD", io_error},
      {"no space for HEAD", Operation::kWrite, "HEAD", no_space},
  };
  Sequence acknowledged = 0;
  for (const auto& [name, operation, path_end, error] : cases) {
    SCOPED_TRACE(name);
    disk_->set_fault({});
    Served served(options());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    ASSERT_GE(served.end().sequence, acknowledged);
    acknowledged = served.end().sequence;
    disk_->set_fault(fail_from(operation, path_end, 4, error));
    absl::Status status;
    while (status.ok()) {
      status = served.append_each(1);
      if (status.ok()) ++acknowledged;
    }
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    expect_final(served);
    EXPECT_EQ(served.end().sequence, acknowledged) << "what failed is not durable";
    EXPECT_EQ(calls_of(operation, path_end), 4U) << "a failed call is never tried again";
  }
  disk_->set_fault({});
  Served served(options());
  EXPECT_GE(all_records(served.journal()).size(), acknowledged);
}

TEST_F(DiskFailureTest, OfAWriteEndsWhatWaitsBehindItToo) {
  Sequence acknowledged = 0;
  for (const Ack ack : {Ack::kAnchor, Ack::kWal}) {
    Served served(options(ack));
    ASSERT_TRUE(served.append_each(1).ok());
    acknowledged = served.end().sequence;
    std::promise<void> reached, submitted;
    disk_->set_fault([&, calls = 0](const FaultFileSystem::Call& call) mutable {
      if (call.operation != Operation::kSync || !call.path.ends_with(".log")) return IOStatus::OK();
      if (++calls == 1) {
        reached.set_value();
        submitted.get_future().wait();
      }
      return IOStatus::IOError("Input/output error");
    });
    TreeHead head = served.end();
    for (int i = 0; i < 3; ++i) {
      Group group = make_group(head, 1);
      head.sequence = group.last();
      served.journal().submit(std::move(group));
      if (i == 0) reached.get_future().wait();
    }
    submitted.set_value();
    expect_final(served);
    EXPECT_EQ(served.end().sequence, acknowledged);
    EXPECT_EQ(calls_of(Operation::kSync, ".log"), 1U);
    disk_->set_fault({});
  }
  Served served(options());
  const std::vector<std::string> records = all_records(served.journal());
  EXPECT_GE(records.size(), acknowledged);
  EXPECT_LE(records.size(), acknowledged + 1) << "what waited was not written";
  for (Sequence sequence = 1; sequence <= records.size(); ++sequence) {
    EXPECT_EQ(records[sequence - 1], record_text(sequence));
  }
}

TEST_F(DiskFailureTest, InTheBackgroundIsFinalToo) {
  Served served(options());
  ASSERT_TRUE(served.append_each(1).ok());
  disk_->set_fault(fail_from(Operation::kSync, ".sst", 1, IOStatus::IOError("Input/output error")));
  absl::Status status;
  // The write-ahead log may grow to 64 MiB, then a table has to be written.
  for (int i = 0; i < 400 && status.ok(); ++i) {
    status = served.append(make_group(served.end(), 16, 60'000)).status();
  }
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  expect_final(served);
}

TEST_F(DiskFailureTest, WhileOpeningIsNotDamage) {
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(3).ok());
  }
  for (const char* part : {".sst", "/MANIFEST-"}) {
    SCOPED_TRACE(part);
    disk_->set_fault([part](const FaultFileSystem::Call& call) {
      const bool fails = call.operation == Operation::kSync && call.path.find(part) != std::string::npos;
      return fails ? IOStatus::IOError("Input/output error") : IOStatus::OK();
    });
    const absl::Status status = open_data_directory(options()).status();
    EXPECT_EQ(exit_code(status), 3) << status;
  }
  disk_->set_fault({});
  Served served(options());
  EXPECT_EQ(all_records(served.journal()).size(), 3U);
}

TEST_F(DiskFailureTest, AtAnyPointOfAFirstStartLeavesADirectoryThatStarts) {
  // One call that changes the disk after another fails, and all that follow: a crash before it.
  for (int n = 1;; n += n < 8 ? 1 : 3) {
    SCOPED_TRACE(testing::Message() << "call " << n);
    const TemporaryDirectory directory;
    const OpenOptions options{(directory.path() / "data").string(), Ack::kAnchor, false, disk_};
    int seen = 0;
    disk_->set_fault([&](const FaultFileSystem::Call&) {
      return ++seen < n ? IOStatus::OK() : IOStatus::IOError("Input/output error");
    });
    const absl::Status status = open_data_directory(options).status();
    disk_->set_fault({});
    Served served(options);
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    ASSERT_TRUE(served.append_each(1).ok());
    if (status.ok()) {
      EXPECT_GT(n, 5) << "a start writes, syncs and renames several files";
      return;
    }
    EXPECT_EQ(exit_code(status), 3) << status;
  }
}

TEST(DiskFailure, OfAnyOneCallOfAnOpeningIsNotDamage) {
  using crashtest::SimulatedDisk;
  const auto disk = std::make_shared<SimulatedDisk>();
  const auto options = [](const std::shared_ptr<SimulatedDisk>& of) {
    OpenOptions made{"/data", Ack::kAnchor, false, of};
    made.check_in_process = true;
    return made;
  };
  for (int life = 0; life < 2; ++life) {  // the second has a table to read, and a log
    Served served(options(disk));
    ASSERT_TRUE(served.append_each(3).ok());
  }
  for (int n = 1;; ++n) {
    const auto copy = disk->copy();
    int seen = 0;
    std::string where;
    copy->set_hook([&](const SimulatedDisk::Call& call) {
      if (++seen != n) return SimulatedDisk::Fault{};
      where = call.path;
      return SimulatedDisk::Fault{IOStatus::IOError("Input/output error"), 0};
    });
    const absl::Status status = open_data_directory(options(copy)).status();
    copy->set_hook({});
    if (where.empty()) {
      EXPECT_GT(n, 50) << "an opening reads and writes several files";
      return;
    }
    EXPECT_TRUE(status.ok() || exit_code(status) == 3) << "call " << n << ", of " << where << ": " << status;
    Served served(options(copy));
    ASSERT_TRUE(served.opening().ok()) << "call " << n << ", of " << where << ": " << served.opening();
    ASSERT_EQ(all_records(served.journal()).size(), 6U);
  }
}

TEST(PowerCut, TakesNothingThatWasAcknowledged) {
  using crashtest::SimulatedDisk;
  const auto changes = [](SimulatedDisk::Operation operation) {
    return operation == SimulatedDisk::Operation::kWrite || operation == SimulatedDisk::Operation::kSync ||
           operation == SimulatedDisk::Operation::kRename || operation == SimulatedDisk::Operation::kSyncDirectory;
  };
  std::mt19937_64 random(1);
  auto disk = std::make_shared<SimulatedDisk>();
  const auto options = [&disk](Ack ack) {
    OpenOptions made{"/data", ack, false, disk};
    made.check_in_process = true;
    return made;
  };
  Sequence acknowledged = 0;
  for (int n = 1; n <= 24; ++n) {
    SCOPED_TRACE(testing::Message() << "the power goes at call " << n);
    {
      Served served(options(n % 2 == 0 ? Ack::kWal : Ack::kAnchor));
      ASSERT_TRUE(served.opening().ok()) << served.opening();
      ASSERT_GE(served.end().sequence, acknowledged);
      int seen = 0;
      disk->set_hook([&](const SimulatedDisk::Call& call) {
        if (!changes(call.operation) || ++seen < n) return SimulatedDisk::Fault{};
        return SimulatedDisk::Fault{IOStatus::IOError("the power is off"), 0};
      });
      Result<Sequence> last = acknowledged;
      while ((last = served.append(make_group(served.end(), 3))).ok()) acknowledged = *last;
    }
    disk = disk->after_power_cut(random);
  }
  Served served(options(Ack::kAnchor));
  const std::vector<std::string> records = all_records(served.journal());
  ASSERT_GE(records.size(), acknowledged);
  EXPECT_GT(acknowledged, 0U);
  for (Sequence i = 1; i <= records.size(); ++i) ASSERT_EQ(records[i - 1], record_text(i));
}

TEST_F(DiskFailureTest, IsForeseenByTheFreeSpace) {
  disk_->set_free_bytes(12'345);
  Served served(options());
  EXPECT_EQ(served.journal().free_bytes(), 12'345U);
  disk_->set_free_bytes(99);
  EXPECT_EQ(served.journal().free_bytes(), 12'345U);
  served.journal().refresh_free_bytes();
  EXPECT_EQ(served.journal().free_bytes(), 99U);
  disk_->set_free_bytes(7);
  ASSERT_TRUE(served.append_each(1).ok());
  EXPECT_EQ(served.journal().free_bytes(), 7U) << "looked at before each group";
}

TEST_F(DiskFailureTest, OneGroupIsOneSync) {
  Served served(options(Ack::kWal));
  ASSERT_TRUE(served.append_each(1).ok());
  disk_->set_fault({});
  ASSERT_TRUE(served.append_each(10).ok());
  EXPECT_EQ(calls_of(Operation::kSync, ".log"), 10U);
}

}  // namespace
}  // namespace tensorforge::storage
