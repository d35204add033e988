#include "storage/head.h"

#include <string>

#include <gtest/gtest.h>

#include "storage/bytes.h"
#include "storage/crc32c.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

constexpr std::size_t kSlots[] = {4'096, 8'192};

Anchor some_anchor(std::uint64_t counter) {
  return {LogId{7, 8, 9}, {41 + counter, Hash{1, 2, 3}, 0xabcd}, 0, counter};
}

/// A file whose two slots are written.
std::string two_slots() {
  std::string bytes = encode_head(some_anchor(4));
  const std::string other = encode_head(some_anchor(5));
  return bytes.replace(kSlots[1], 512, other, kSlots[1], 512);
}

void tear(std::string& bytes, std::size_t slot) { bytes[slot + 50] = static_cast<char>(bytes[slot + 50] ^ 1); }

void set_slot_format(std::string& bytes, std::size_t slot, std::uint32_t format) {
  put_little(&bytes[slot + 4], format);
  put_little(&bytes[slot + 508], crc32c(std::string_view(bytes).substr(slot, 508)));
}

absl::StatusCode code_of(const std::string& bytes) { return decode_head(bytes).status().code(); }

TEST(Head, HasTheBytesThatTheFormatSays) {
  const std::string bytes = encode_head({LogId{0x11}, {0x0102, Hash{0x22}, 0x03040506}, 7, 9});
  ASSERT_EQ(bytes.size(), 12'288U);
  EXPECT_EQ(bytes.substr(0, 9), std::string("TFHD\x01\0\0\0\x11", 9));
  const std::string slot = bytes.substr(8'192, 512);  // 9 is odd
  EXPECT_EQ(slot.substr(0, 9), std::string("TFHS\x01\0\0\0\x11", 9));
  EXPECT_EQ(slot.substr(24, 8), std::string("\x06\x05\x04\x03\0\0\0\0", 8));
  EXPECT_EQ(slot.substr(32, 8), std::string("\x07\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(slot.substr(40, 8), std::string("\x09\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(slot.substr(48, 8), std::string("\x02\x01\0\0\0\0\0\0", 8));
  EXPECT_EQ(slot[56], '\x22');
  EXPECT_EQ(get_little<std::uint32_t>(&slot[508]), crc32c(slot.substr(0, 508)));
  EXPECT_EQ(bytes.substr(4'096, 4'096), std::string(4'096, '\0'));
}

TEST(Head, TakesTheSlotWithTheHigherCounter) {
  const Result<HeadFile> head = decode_head(two_slots());
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->anchor, some_anchor(5));
  EXPECT_FALSE(head->written_once);
  EXPECT_TRUE(decode_head(encode_head(some_anchor(4)))->written_once);
}

TEST(Head, StandsOneTornSlotAndNotTwo) {
  std::string bytes = two_slots();
  tear(bytes, kSlots[1]);
  EXPECT_EQ(decode_head(bytes)->anchor, some_anchor(4));
  EXPECT_FALSE(decode_head(bytes)->written_once);
  tear(bytes, kSlots[0]);
  EXPECT_EQ(code_of(bytes), absl::StatusCode::kDataLoss);
  tear(bytes, kSlots[1]);
  EXPECT_EQ(decode_head(bytes)->anchor, some_anchor(5));
}

TEST(Head, IsHarmlessOrRefusedWithOneFlippedBit) {
  const std::string good = two_slots();
  for (std::size_t at = 0; at < good.size(); ++at) {
    if (at > 600 && at % 4'096 > 600) continue;
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      const Result<HeadFile> head = decode_head(bad);
      if (head.ok()) {
        ASSERT_TRUE(head->anchor == some_anchor(5) || head->anchor == some_anchor(4));
      } else {
        ASSERT_EQ(head.status().code(), absl::StatusCode::kDataLoss) << at << " " << bit << " " << head.status();
      }
    }
  }
}

TEST(Head, TellsWhatIsNotOursFromWhatIsDamaged) {
  std::string newer = two_slots();
  put_little(&newer[4], std::uint32_t{2});
  EXPECT_EQ(code_of(newer), absl::StatusCode::kFailedPrecondition) << "a newer first block";
  newer = two_slots();
  for (const std::size_t slot : kSlots) set_slot_format(newer, slot, 2);
  EXPECT_EQ(code_of(newer), absl::StatusCode::kFailedPrecondition) << "newer slots";
  put_little(&newer[4], std::uint32_t{3});
  EXPECT_EQ(code_of(newer), absl::StatusCode::kFailedPrecondition) << "newer altogether";
  EXPECT_EQ(code_of(newer + "more"), absl::StatusCode::kFailedPrecondition) << "newer and longer";
  EXPECT_EQ(code_of("ref: refs/heads/main\n"), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code_of(""), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code_of(std::string(12'288, 'x')), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code_of(two_slots().substr(0, 12'287)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code_of(two_slots() + "x"), absl::StatusCode::kDataLoss);

  std::string mixed = two_slots();
  Anchor other = some_anchor(5);
  other.log_id[0] = 99;
  mixed.replace(kSlots[1], 512, encode_head(other), kSlots[1], 512);
  EXPECT_EQ(code_of(mixed), absl::StatusCode::kDataLoss) << "slots of two logs";
  std::string swapped = two_slots();
  swapped.replace(kSlots[0], 512, two_slots(), kSlots[1], 512).replace(kSlots[1], 512, two_slots(), kSlots[0], 512);
  EXPECT_EQ(code_of(swapped), absl::StatusCode::kDataLoss) << "slots in each other's place";
}

TEST(Head, IsWrittenInTurns) {
  const TemporaryDirectory directory;
  const auto files = rocksdb::FileSystem::Default();
  const std::string data_dir = directory.path();
  ASSERT_TRUE(create_head(*files, data_dir, {LogId{1}, {0, Hash{}, 5}, 0, 0}).ok());
  EXPECT_FALSE(std::filesystem::exists(data_dir + "/HEAD.new"));
  Result<HeadFile> head = read_head(*files, data_dir + "/HEAD");
  ASSERT_TRUE(head.ok()) << head.status();
  auto writer = HeadWriter::open(*files, data_dir + "/HEAD", head->anchor);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (std::uint64_t i = 1; i <= 5; ++i) {
    const std::string before = read_bytes(data_dir + "/HEAD");
    ASSERT_TRUE((*writer)->write({10 * i, Hash{static_cast<std::uint8_t>(i)}, 5}).ok());
    const std::string after = read_bytes(data_dir + "/HEAD");
    ASSERT_EQ(after.size(), kHeadBytes);
    const std::size_t kept = kSlots[(i + 1) % 2];
    EXPECT_EQ(after.substr(kept, 512), before.substr(kept, 512)) << "the other slot is left alone";
    head = read_head(*files, data_dir + "/HEAD");
    ASSERT_TRUE(head.ok());
    EXPECT_EQ(head->anchor.head.sequence, 10 * i);
    EXPECT_EQ(head->anchor.counter, i);
  }
}

}  // namespace
}  // namespace tensorforge::storage
