#include "storage/chunk.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "storage/bytes.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

constexpr std::size_t kFormatAt = 4;
constexpr std::uint32_t kPlain = 1;
constexpr std::uint32_t kCompressed = 2;

std::uint32_t format_of(const std::string& chunk) { return get_little<std::uint32_t>(&chunk[kFormatAt]); }

/// The chunk of `count` records of `bytes` bytes each, in which nothing comes twice.
std::string plain_chunk(std::size_t count = 3, std::size_t bytes = 20) {
  std::mt19937 random(7);
  Group group;
  group.first = 1;
  for (std::size_t i = 0; i < count; ++i) {
    std::string record(bytes, '\0');
    for (char& c : record) c = static_cast<char>(random());
    group.add({record});
  }
  LogPoint end;
  std::string value = encode_group(group, end).at(0).value;
  EXPECT_EQ(format_of(value), kPlain);
  return value;
}

/// The chunk of `count` records of one letter each, `bytes` times.
std::string compressed_chunk(std::uint32_t count = 3, std::size_t bytes = 40) {
  Group group;
  group.first = 1;
  for (std::uint32_t i = 0; i < count; ++i) group.add({std::string(bytes, static_cast<char>('a' + i % 26))});
  LogPoint end;
  std::string value = encode_group(group, end).at(0).value;
  EXPECT_EQ(format_of(value), kCompressed);
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

/// One record of 100 bytes, as the specification of LZ4's blocks lets one write it.
TEST(Chunk, HoldsACompressedBodyAsTheFormatSays) {
  const std::string record(100, 'x');
  Group group;
  group.first = 1;
  group.add({record});
  LogPoint end;
  const std::string written = encode_group(group, end).at(0).value;
  ASSERT_EQ(format_of(written), kCompressed);
  EXPECT_EQ(get_little<std::uint32_t>(&written[64]), 104U) << "the length of the body";
  EXPECT_EQ(with_valid_checksum(written), written);

  // Five literals, of which the last comes 94 times more; then the last five literals of every block.
  const std::string block("\x5f\x64\0\0\0x\x01\0\x4b\x50xxxxx", 15);
  const std::string by_hand = with_valid_checksum(written.substr(0, 68) + block);
  const Result<Chunk> chunk = decode_chunk(by_hand);
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_EQ(chunk->header, (ChunkHeader{1, 1, 1, end.frontier.root()}));
  EXPECT_EQ(chunk->records, std::vector<std::string_view>{record});
  EXPECT_EQ(chunk->value, by_hand);
}

TEST(Chunk, IsSmallerWhereItsRecordsSayTheSame) {
  const std::string value = compressed_chunk(1'000, 200);
  EXPECT_LT(value.size(), 1'000 * 200 / 10);
  Result<Chunk> chunk = decode_chunk(value);
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  const Chunk moved = *std::move(chunk);
  ASSERT_EQ(moved.records.size(), 1'000U);
  for (std::size_t i = 0; i < 1'000; ++i) {
    ASSERT_EQ(moved.records[i], std::string(200, static_cast<char>('a' + i % 26))) << i;
  }
}

TEST(Chunk, IsNoLargerWhereTheyDoNot) { EXPECT_EQ(plain_chunk(100, 1'000).size(), kChunkHeaderBytes + 100 * 1'004); }

TEST(Chunk, RefusesEveryFlippedBit) {
  for (const std::string& good : {plain_chunk(), compressed_chunk()}) {
    for (std::size_t i = 0; i < good.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
        ASSERT_EQ(decode_chunk(bad).status().code(), absl::StatusCode::kDataLoss) << i << " " << bit;
      }
    }
  }
}

TEST(Chunk, RefusesEveryTruncation) {
  for (const std::string& good : {plain_chunk(), compressed_chunk()}) {
    for (std::size_t i = 0; i < good.size(); ++i) {
      ASSERT_EQ(decode_chunk(good.substr(0, i)).status().code(), absl::StatusCode::kDataLoss) << i;
      if (i < kChunkHeaderBytes) continue;
      ASSERT_EQ(decode_chunk(with_valid_checksum(good.substr(0, i))).status().code(), absl::StatusCode::kDataLoss) << i;
    }
    EXPECT_TRUE(absl::IsDataLoss(decode_chunk(good + "x").status()));
    EXPECT_TRUE(absl::IsDataLoss(decode_chunk(with_valid_checksum(good + "x")).status()));
  }
}

TEST(Chunk, RefusesLiesUnderAValidChecksum) {
  const struct {
    const char* name;
    std::size_t at;
    std::uint32_t value;
    absl::StatusCode want;
  } cases[] = {
      {"a newer format", 4, 3, absl::StatusCode::kFailedPrecondition},
      {"no format", 4, 0, absl::StatusCode::kFailedPrecondition},
      {"says that it is compressed", 4, 2, absl::StatusCode::kDataLoss},
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
    std::string bad = plain_chunk();
    put_little(&bad[at], value);
    EXPECT_EQ(decode_chunk(with_valid_checksum(bad)).status().code(), want);
  }
}

TEST(Chunk, RefusesLiesAboutACompressedBody) {
  const std::string good = compressed_chunk();
  const struct {
    const char* name;
    std::size_t at;
    std::uint32_t value;
  } cases[] = {
      {"says that it is plain", 4, 1},
      {"counts too few", 24, 2},
      {"counts too many", 24, 4},
      {"counts 4 billion", 24, 0xffffffffU},
      {"a body of nothing", 64, 0},
      {"a body of one byte less", 64, 3 * 44 - 1},
      {"a body of one byte more", 64, 133},
      {"a body of 1 MiB", 64, 1U << 20U},
      {"a body over the limit", 64, 1U << 25U},
      {"a body of 4 GiB", 64, 0xffffffffU},
  };
  ASSERT_EQ(get_little<std::uint32_t>(&good[64]), 3 * 44U);
  for (const auto& [name, at, value] : cases) {
    SCOPED_TRACE(name);
    std::string bad = good;
    put_little(&bad[at], value);
    EXPECT_TRUE(absl::IsDataLoss(decode_chunk(with_valid_checksum(bad)).status()));
  }
}

TEST(Chunk, SurvivesRandomBytes) {
  constexpr std::uint32_t kSeed = 11;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  const std::string chunks[] = {plain_chunk(), compressed_chunk()};
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = chunks[i % 2];
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
    const Result<Chunk> chunk = decode_chunk(chunks[i].value);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    EXPECT_EQ(chunk->records.size(), kChunkTargetBytes / 1'004);
  }
  EXPECT_EQ(end.sequence(), 2'000U);
}

TEST(Group, KeepsALargeCommandInOneChunk) {
  Group group;
  group.first = 1;
  group.add({"before"});
  std::vector<std::string> large;
  for (Sequence i = 2; i <= 251; ++i) large.push_back(record_text(i, 65'535));
  group.add(large);
  group.add({"after"});
  LogPoint end;
  const std::vector<EncodedChunk> chunks = encode_group(group, end);
  ASSERT_EQ(chunks.size(), 3U);
  const Result<Chunk> chunk = decode_chunk(chunks[1].value);
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_EQ(chunk->header.count, 250U);
  EXPECT_EQ(format_of(chunks[1].value), kPlain) << "so that it is as long as a chunk may be";
  EXPECT_TRUE(std::equal(large.begin(), large.end(), chunk->records.begin(), chunk->records.end()));
}

}  // namespace
}  // namespace tensorforge::storage
