// Data directories as released versions wrote them: HEAD, chunks, notes, meta data and records, in RocksDB's own files.
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>

#include "service/recover.h"
#include "service/service.h"
#include "storage/data_directory.h"
#include "storage/database.h"
#include "storage/head.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/random_commands.h"
#include "tests/support/service_fixture.h"

namespace tensorforge {
namespace {

namespace fs = std::filesystem;

const fs::path kLogs = fs::path(TENSORFORGE_GOLDEN_DIR) / "logs";
constexpr std::size_t kCommands = 500;

/// Writes a log of commands of all domains, batches, commands of many records, notes and sessions. What is expected of
/// it.
std::string write_log(const fs::path& data_dir) {
  storage::OpenOptions options;
  options.data_dir = data_dir;
  storage::Served served(options);
  EXPECT_TRUE(served.opening().ok()) << served.opening();
  service::Now now{test::kStart, 1'000};
  service::State state;
  EXPECT_TRUE(served
                  .append(service::start_incarnation(state, served.opened().to_start->cause, served.end().root,
                                                     served.opened().to_start->incarnation, now.wall_ms))
                  .ok());
  service::Service service({}, std::move(state), test::counting_bytes(), now);
  test::RandomCommands random(2026);
  std::uint64_t numbers[3] = {};
  for (std::size_t i = 0; i < kCommands; ++i) {
    now.wall_ms += 1'000;
    now.boot_ms += 1'000;
    service.on_tick(now);
    const std::size_t session = i % 3;
    service::Caller caller;
    caller.actor = "ann";
    caller.peer_address = "10.0.0.1:99";
    caller.session[0] = static_cast<std::uint8_t>(session + 1);
    caller.opened_at = 1;
    Request request;
    request.command_number = ++numbers[session];
    request.answered_below = request.command_number;
    if (i % 10 == 0) request.reason = "quarterly release";
    service.execute(caller, request, random.next(service.state()));
    if (i % 4 != 0) continue;
    while (auto group = service.take_group()) EXPECT_TRUE(served.append(*std::move(group)).ok());
  }
  service.note_digest_at_end();
  while (auto group = service.take_group()) EXPECT_TRUE(served.append(*std::move(group)).ok());
  EXPECT_TRUE(served.journal().close().ok());
  return fmt::format("{} {}\n", service.state().sequence, format_digest(service.state().digest()));
}

/// Once for each format of chunks. Run by hand; the name of a format that was released is never used again.
TEST(GoldenLog, DISABLED_WriteGolden) {
  const fs::path wal = kLogs / "2-wal", tables = kLogs / "2-tables";
  ASSERT_FALSE(fs::exists(wal) || fs::exists(tables)) << "a released file is never written again";
  fs::create_directories(kLogs);
  const std::string expected = write_log(wal);
  fs::copy(wal, tables, fs::copy_options::recursive);
  // Opening moves what the write-ahead log holds into tables.
  ASSERT_TRUE(storage::Database::open(rocksdb::FileSystem::Default(), tables / "db", nullptr).ok());
  for (const fs::path& directory : {wal, tables}) {
    storage::write_bytes(directory / "EXPECTED", expected);
    fs::remove(directory / "LOCK");
    for (const char* aside : {"LOG", "OPTIONS-"}) {  // the library reads neither
      for (const fs::path& file : storage::files_like(directory / "db", aside)) fs::remove(file);
    }
  }
}

TEST(GoldenLog, VerifiesAndReplaysToTheStateThatItWasWrittenFrom) {
  std::size_t logs = 0;
  for (const auto& entry : fs::directory_iterator(kLogs)) {
    SCOPED_TRACE(entry.path());
    ++logs;
    const storage::TemporaryDirectory directory;
    fs::copy(entry.path(), directory.path(), fs::copy_options::recursive);
    const auto log = storage::open_read_only(directory.path().string());
    ASSERT_TRUE(log.ok()) << log.status();
    Sequence sequence{};
    std::string digest;
    std::ifstream(entry.path() / "EXPECTED") >> sequence >> digest;
    ASSERT_GT(sequence, 0U);

    const Result<storage::LogVerified> verified = (*log)->verify();
    ASSERT_TRUE(verified.ok()) << verified.status();
    const auto head = storage::read_head(*rocksdb::FileSystem::Default(), entry.path() / "HEAD");
    ASSERT_TRUE(head.ok()) << head.status();
    EXPECT_EQ(verified->end, head->anchor.head) << "up to the anchored root";
    EXPECT_EQ(head->anchor.head.sequence, sequence);

    const Result<service::State> state = service::recover(**log);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(format_digest(state->digest()), digest);
    EXPECT_GT(state->registry.version_count(), 0U);
    EXPECT_GT(state->gpu_memory.pool_count(), 0U);
    EXPECT_GT(state->checkpoint.total_count(), 0U);
    EXPECT_EQ(state->sessions.size(), 3U);
    const auto noted = (*log)->noted_digest(sequence);
    ASSERT_TRUE(noted.ok() && *noted) << noted.status();
    EXPECT_EQ(*service::decode_noted_digest(**noted), service::noted_digest(*state));

    ASSERT_GT(verified->notes, 0U);
    std::size_t notes = 0, parts = 0, batches = 0;
    for (const std::string& bytes : storage::all_records(**log)) {
      const auto record = codec::decode_record(std::as_bytes(std::span(bytes)));
      ASSERT_TRUE(record.ok()) << record.status();
      parts += record->parts > 1 ? 1 : 0;
      batches += record->batch_size > 0 ? 1 : 0;
      const auto note = (*log)->note(record->sequence);
      ASSERT_TRUE(note.ok()) << note.status();
      if (!*note) continue;
      ++notes;
      EXPECT_EQ(codec::decode_note(std::as_bytes(std::span((*note)->bytes)))->reason, "quarterly release");
    }
    EXPECT_EQ(notes, verified->notes);
    EXPECT_GT(parts, 0U);
    EXPECT_GT(batches, 0U);
  }
  EXPECT_EQ(logs, 4U);
}

}  // namespace
}  // namespace tensorforge
