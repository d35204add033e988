// A disk that fails or is full, under the real service.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/recovery/recovery_test.h"
#include "tests/support/raw_peer.h"

namespace tensorforge {
namespace {

namespace fs = std::filesystem;
using test::Daemon;
using test::Load;
using test::pool_creation;
using test::registration;
using test::status_of;
using testing::HasSubstr;

class DiskTest : public test::RecoveryTest {
 protected:
  /// The service ends with 3, and another one over the mended disk has all that was acknowledged, once.
  void expect_final_and_harmless(Daemon& failing, Load& load, client::Client& client) {
    EXPECT_EQ(failing.wait(), 3) << failing.errors();
    EXPECT_THAT(failing.errors(), HasSubstr("the disk failed"));
    mend();
    const auto daemon = start({"--reserve", "0"});
    load.stop();
    expect_all_there(client, {&load});
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }
  virtual void mend() {}
};

/// From now on a write of the process fails beyond so many bytes of a file, with EFBIG.
void limit_files(const Daemon& daemon, std::uintmax_t bytes) {
  const rlimit limit{bytes, bytes};
  ASSERT_EQ(prlimit(daemon.pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
}

TEST_F(DiskTest, AFailedWriteOfTheLogIsFinalAndHarmless) {
  const auto daemon = start({"--reserve", "0"});
  const auto client = connect();
  ASSERT_TRUE(client->call(pool_creation()).status.ok());
  Load load(*client, "m", 16);
  load.wait_for_answers(300);
  limit_files(*daemon, fs::file_size(test::files_like(data_ / "db", ".log").back()));
  expect_final_and_harmless(*daemon, load, *client);
}

TEST_F(DiskTest, AFailedWriteOfTheAnchorIsFinalAndHarmless) {
  const auto daemon = start({"--reserve", "0"});
  const auto client = connect();
  ASSERT_TRUE(client->call(pool_creation()).status.ok());
  const fs::path wal = test::files_like(data_ / "db", ".log").back();
  ASSERT_LT(test::bytes_without_zeros_behind(wal), 4'096U)
      << "the log has still room, but the second slot of HEAD lies beyond it";
  limit_files(*daemon, 8'192);
  Load load(*client, "m", 1);
  expect_final_and_harmless(*daemon, load, *client);
  EXPECT_THAT(daemon->errors(), HasSubstr("write HEAD"));
}

TEST_F(DiskTest, TooLittleRoomRefusesChangesAndNothingElse) {
  result::Status before;
  {
    const auto daemon = start({"--reserve", "0"});
    const auto client = connect();
    ASSERT_TRUE(client->call(registration("a")).status.ok());
    before = status_of(*client);
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }
  {
    const auto daemon = start({"--reserve", "1000000000000000000"});
    const auto client = connect();
    EXPECT_TRUE(absl::IsResourceExhausted(client->call(registration("b")).status));
    EXPECT_TRUE(client->call(query::GetModel{"a", test::kV1}).status.ok());
    EXPECT_EQ(status_of(*client).state_digest, before.state_digest);
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }
  const auto daemon = start({"--reserve", "0"});
  EXPECT_TRUE(connect()->call(registration("b")).status.ok());
}

/// The data directory lies on a file system of 32 MiB in memory, of this process and its children alone.
class FullDiskTest : public DiskTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only root may mount a small file system";
    const bool mounted = unshare(CLONE_NEWNS) == 0 && mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         mount("tensorforge-test", directory_.path().c_str(), "tmpfs", 0, "size=32m") == 0;
    if (!mounted) GTEST_SKIP() << "no small file system can be mounted here: " << std::strerror(errno);
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) umount2(directory_.path().c_str(), MNT_DETACH);
  }
  /// Leaves so many bytes free.
  void fill_up(std::uintmax_t leave) const {
    const std::uintmax_t free = fs::space(directory_.path()).available;
    ASSERT_GT(free, leave);
    test::write_bytes(filler_, std::string(free - leave, 'x'));
  }
  void mend() override { fs::remove(filler_); }

  const fs::path filler_ = directory_.path() / "filler";
  bool mounted_{};
};

TEST_F(FullDiskTest, RefusesChangesBelowTheReserveAndHealsByItself) {
  const auto daemon = start({"--reserve", "8388608"});
  const auto client = connect();
  ASSERT_TRUE(client->call(registration("a")).status.ok());
  fill_up(4 << 20);
  int taken = 0;
  absl::Status status;
  while (status.ok()) status = client->call(registration("b" + std::to_string(taken++))).status;
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(client->call(query::GetModel{"a", test::kV1}).status.ok());
  mend();
  do {
    status = client->call(registration("c")).status;
  } while (absl::IsResourceExhausted(status));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
}

TEST_F(FullDiskTest, IsFinalAndHarmlessWhereThereIsNoReserve) {
  const auto daemon = start({"--reserve", "0"});
  const auto client = connect();
  ASSERT_TRUE(client->call(pool_creation()).status.ok());
  Load load(*client, "m", 16);
  load.wait_for_answers(300);
  fill_up(0);
  expect_final_and_harmless(*daemon, load, *client);
}

/// The service runs with a module that comes between it and the disk.
class PreloadTest : public DiskTest {
 protected:
  void SetUp() override {
    const std::string_view type = TENSORFORGE_BUILD_TYPE;
    // Their runtimes have to be loaded first.
    if (type == "Asan" || type == "Tsan") GTEST_SKIP() << "nothing can be preloaded beside a sanitizer";
  }
};

/// One sync of the service fails, and the disk is well again: what was written is in doubt all the same.
class FailingSyncTest : public PreloadTest {
 protected:
  void expect_one_failed_sync_to_be_final(const std::string& file) {
    const fs::path trigger = directory_.path() / "trigger", report = directory_.path() / "report";
    const auto daemon = start({"--reserve", "0"},
                              {std::string("LD_PRELOAD=") + FAILING_SYNC_PATH, "FAILING_SYNC_FILE=" + file,
                               "FAILING_SYNC_TRIGGER=" + trigger.string(), "FAILING_SYNC_REPORT=" + report.string()});
    const auto client = connect();
    ASSERT_TRUE(client->call(pool_creation()).status.ok());
    Load load(*client, "m", 16);
    load.wait_for_answers(300);
    test::write_bytes(trigger, "");
    expect_final_and_harmless(*daemon, load, *client);
    EXPECT_EQ(test::read_bytes(report), "failed\n") << "a sync that failed is never tried again";
  }
};

TEST_F(FailingSyncTest, OfTheLogIsFinalAndHarmless) { expect_one_failed_sync_to_be_final(".log"); }

TEST_F(FailingSyncTest, OfTheAnchorIsFinalAndHarmless) { expect_one_failed_sync_to_be_final("HEAD"); }

/// Sends changes as fast as the service takes them, and reads no answer, until it is gone. The number of bytes sent.
std::size_t flood(std::uint16_t port, int peer_number) {
  test::RawPeer peer(port);
  if (!peer.greet(SessionId{0x66, static_cast<std::uint8_t>(peer_number)})) return 0;
  std::size_t sent = 0;
  auto noise = static_cast<std::uint64_t>(peer_number);
  for (std::uint64_t number = 1;; ++number) {
    registry::ModelMetadata model;
    model.model_id = fmt::format("flood-{}-{}", peer_number, number);
    model.version = test::kV1;
    model.tags["payload"] = test::random_text(15'000, noise);
    Request request;
    request.correlation_id = request.command_number = number;
    request.body = Command(SingleCommand(registry::Command(registry::RegisterModel{model})));
    const std::string frame = codec::encode_client_frame(request).value();
    if (!peer.send(frame)) return sent;
    sent += frame.size();
  }
}

std::size_t most_resident_bytes(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  std::string word;
  while (status >> word && word != "VmHWM:") {
  }
  std::size_t kibibytes = 0;
  status >> kibibytes;
  return kibibytes << 10U;
}

TEST_F(PreloadTest, ClientsFasterThanTheDiskTakeABoundedAmountOfMemory) {
  const auto daemon = start({"--reserve", "0"}, {std::string("LD_PRELOAD=") + SLOW_SYNC_PATH, "SLOW_SYNC_MS=20"});
  const auto client = connect();
  std::vector<std::future<std::size_t>> floods;
  for (int i = 0; i < 32; ++i) floods.push_back(std::async(std::launch::async, flood, port_, i));
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(client->call(registration(fmt::format("quiet-{}", i))).status.ok());
  }
  // What a model of the flood takes in the state: its payload, a little more for its other fields, and what the
  // allocator rounds up.
  const std::size_t state_bytes = status_of(*client).model_versions * 20'000;
  const std::size_t resident = most_resident_bytes(daemon->pid());
  daemon->kill();
  std::size_t sent = 0;
  for (auto& each : floods) sent += each.get();
  EXPECT_LT(resident, state_bytes + (std::size_t{256} << 20U)) << "of " << sent << " bytes that came";
}

}  // namespace
}  // namespace tensorforge
