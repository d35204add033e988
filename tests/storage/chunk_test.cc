#include "storage/chunk.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "storage/bytes.h"
#include "storage/crc32c.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

std::string small_chunk() {
  LogPoint end;
  return encode_group(make_group({}, 3), end).at(0).value;
}

/// As a writer with other ideas would leave it: the checksum is right.
std::string with_valid_checksum(std::string value) {
  put_little(&value[28], std::uint32_t{0});
  put_little(&value[28], crc32c(value));
  return value;
}

TEST(Chunk, ComesBackAsItWentIn) {
  LogPoint end;
  const std::vector<EncodedChunk> chunks = encode_group(make_group({}, 3), end);
  ASSERT_EQ(chunks.size(), 1U);
  const Result<Chunk> chunk = decode_chunk(chunks[0].value);
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_EQ(chunk->header, (ChunkHeader{1, 1, 3, end.frontier.root()}));
  ASSERT_EQ(chunk->records.size(), 3U);
  for (Sequence i = 1; i <= 3; ++i) EXPECT_EQ(chunk->records[i - 1], record_text(i));
  EXPECT_EQ(end.sequence(), 3U);
  EXPECT_EQ(end.chunk_number, 1U);
}

TEST(Chunk, HasTheBytesThatTheFormatSays) {
  LogPoint end;
  Group group;
  group.first = 1;
  group.add({"ab", "c"});
  const std::string value = encode_group(group, end).at(0).value;
  const std::string body("\x02\0\0\0ab\x01\0\0\0c", 11);
  EXPECT_EQ(value.substr(0, 4), "TFCK");
  EXPECT_EQ(value.substr(4, 24), std::string("\x01\0\0\0"
                                             "\x01\0\0\0\0\0\0\0"
                                             "\x01\0\0\0\0\0\0\0"
                                             "\x02\0\0\0",
                                             24));
  EXPECT_EQ(value.substr(32, 32), view_of(end.frontier.root()));
  EXPECT_EQ(value.substr(64), body);
  EXPECT_EQ(with_valid_checksum(value), value);
}

TEST(Chunk, RefusesEveryFlippedBit) {
  const std::string good = small_chunk();
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      ASSERT_EQ(decode_chunk(bad).status().code(), absl::StatusCode::kDataLoss) << i << " " << bit;
    }
  }
}

TEST(Chunk, RefusesEveryTruncation) {
  const std::string good = small_chunk();
  for (std::size_t i = 0; i < good.size(); ++i) {
    ASSERT_EQ(decode_chunk(good.substr(0, i)).status().code(), absl::StatusCode::kDataLoss) << i;
  }
  EXPECT_TRUE(absl::IsDataLoss(decode_chunk(good + "x").status()));
}

TEST(Chunk, RefusesLiesUnderAValidChecksum) {
  const struct {
    const char* name;
    std::size_t at;
    std::uint32_t value;
    absl::StatusCode want;
  } cases[] = {
      {"a newer format", 4, 2, absl::StatusCode::kFailedPrecondition},
      {"number 0", 8, 0, absl::StatusCode::kDataLoss},
      {"first sequence 0", 16, 0, absl::StatusCode::kDataLoss},
      {"count 0", 24, 0, absl::StatusCode::kDataLoss},
      {"counts too few", 24, 2, absl::StatusCode::kDataLoss},
      {"counts too many", 24, 4, absl::StatusCode::kDataLoss},
      {"counts 4 billion", 24, 0xffffffffU, absl::StatusCode::kDataLoss},
      {"an empty record", 64, 0, absl::StatusCode::kDataLoss},
      {"a record of 4 GiB", 64, 0xffffffffU, absl::StatusCode::kDataLoss},
      {"a record over the limit", 64, 65'536, absl::StatusCode::kDataLoss},
      {"a record past the end", 64, 1'000, absl::StatusCode::kDataLoss},
  };
  for (const auto& [name, at, value, want] : cases) {
    SCOPED_TRACE(name);
    std::string bad = small_chunk();
    put_little(&bad[at], value);
    EXPECT_EQ(decode_chunk(with_valid_checksum(bad)).status().code(), want);
  }
}

TEST(Chunk, SurvivesRandomBytes) {
  constexpr std::uint32_t kSeed = 11;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = small_chunk();
    for (int j = 0; j < 4; ++j) bytes[4 + random() % (bytes.size() - 4)] = static_cast<char>(random());
    const Result<Chunk> chunk = decode_chunk(with_valid_checksum(bytes));
    if (chunk.ok()) {
      ASSERT_EQ(chunk->records.size(), chunk->header.count);
    }
  }
}

TEST(Group, IsCutAtCommandEndsOnly) {
  // Commands of 3 records of 60,000 bytes: one fits into a chunk, a second does not.
  Group group;
  group.first = 1;
  for (Sequence i = 0; i < 5; ++i) group.add(std::vector<std::string>(3, std::string(60'000, 'x')));
  LogPoint end;
  const std::vector<EncodedChunk> chunks = encode_group(group, end);
  ASSERT_EQ(chunks.size(), 5U);
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const Result<Chunk> chunk = decode_chunk(chunks[i].value);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    EXPECT_EQ(chunk->header.first, 1 + 3 * i);
    EXPECT_EQ(chunk->header.count, 3U);
    EXPECT_EQ(chunk->header.number, i + 1);
    EXPECT_EQ(chunks[i].first, chunk->header.first);
  }
}

TEST(Group, FillsChunksUpToTheTarget) {
  LogPoint end;
  const std::vector<EncodedChunk> chunks = encode_group(make_group({}, 2'000, 1'000), end);
  ASSERT_GT(chunks.size(), 7U);
  for (std::size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_LE(chunks[i].value.size(), kChunkHeaderBytes + kChunkTargetBytes);
    EXPECT_GT(chunks[i].value.size(), kChunkTargetBytes - 1'004);
  }
  EXPECT_EQ(end.sequence(), 2'000U);
}

TEST(Group, KeepsALargeCommandInOneChunk) {
  Group group;
  group.first = 1;
  group.add({"before"});
  group.add(std::vector<std::string>(250, std::string(65'535, 'y')));
  group.add({"after"});
  LogPoint end;
  const std::vector<EncodedChunk> chunks = encode_group(group, end);
  ASSERT_EQ(chunks.size(), 3U);
  const Result<Chunk> chunk = decode_chunk(chunks[1].value);
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_EQ(chunk->header.count, 250U);
}

}  // namespace
}  // namespace tensorforge::storage
