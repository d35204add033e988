// The formats are for ever: bytes that were written once decode to what they meant, and are written the same today.
#include "tests/codec/golden.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include <gtest/gtest.h>

#include "tests/codec/bytes.h"
#include "tests/codec/samples.h"

namespace tensorforge {
namespace {

const std::filesystem::path kGoldenDir = TENSORFORGE_GOLDEN_DIR;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path << " is missing: run write_golden (tests/golden/README.md)";
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T, class Decode>
void expect_decoded(const std::string& folder, const std::vector<samples::Named<T>>& values, Decode decode) {
  for (const auto& [name, value] : values) {
    SCOPED_TRACE(name);
    const auto decoded = decode(bytes_of(read_file(kGoldenDir / folder / (name + ".bin"))));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, value);
  }
}

TEST(Golden, BytesDecodeToWhatTheyMeant) {
  expect_decoded("records", samples::records(), codec::decode_record);
  expect_decoded("notes", samples::notes(), codec::decode_note);
  expect_decoded("client", samples::client_messages(), codec::decode_client_frame);
  expect_decoded("server", samples::server_messages(), codec::decode_server_frame);
  expect_decoded("snapshot_pages", samples::snapshot_parts(), codec::decode_snapshot_part);
}

TEST(Golden, BytesAreWrittenTheSameToday) {
  for (const auto& [path, bytes] : samples::goldens()) EXPECT_EQ(read_file(kGoldenDir / path), bytes) << path;
}

TEST(Golden, EveryFileHasItsSample) {
  std::set<std::filesystem::path> expected, found;
  for (const auto& golden : samples::goldens()) expected.insert(golden.path);
  for (const char* folder : {"records", "notes", "client", "server", "snapshot_pages"}) {
    for (const auto& entry : std::filesystem::directory_iterator(kGoldenDir / folder)) {
      found.insert(std::filesystem::path(folder) / entry.path().filename());
    }
  }
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace tensorforge
