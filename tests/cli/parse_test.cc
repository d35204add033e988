#include "tools/cli/parse.h"

#include <limits>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"

namespace tensorforge::cli {
namespace {

TEST(ParseTest, ReadsSizesWithAndWithoutUnits) {
  const struct {
    std::string_view text;
    std::optional<std::uint64_t> want;
  } cases[] = {
      {"0", 0},
      {"4096", 4096},
      {"512B", 512},
      {"1KiB", 1024},
      {"1 MiB", 1048576},
      {"1.5GiB", 1610612736},
      {"0.5kib", 512},
      {"18446744073709551615", std::numeric_limits<std::uint64_t>::max()},
      {"16777215TiB", 16777215ULL << 40U},
      {"", {}},
      {"GiB", {}},
      {"-1", {}},
      {"+1", {}},
      {"1kB", {}},
      {"1.5", {}},
      {"0.3KiB", {}},
      {"1e3", {}},
      {"0x10", {}},
      {"1.2.3MiB", {}},
      {"18446744073709551616", {}},
      {"16777216TiB", {}},
      {"99999999999999999999TiB", {}},
  };
  for (const auto& [text, want] : cases) {
    SCOPED_TRACE(text);
    const Result<std::uint64_t> size = parse_size(text);
    EXPECT_EQ(size.ok() ? std::optional(*size) : std::nullopt, want);
  }
}

TEST(ParseTest, TakesWholeNumbersInDecimalAlone) {
  EXPECT_EQ(*parse_whole("007"), 7U);  // not octal
  EXPECT_EQ(*parse_whole("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
  for (const std::string_view text : {"", "-1", "+1", " 1", "1 ", "0x1", "1.0", "18446744073709551616"}) {
    SCOPED_TRACE(text);
    EXPECT_FALSE(parse_whole(text).ok());
  }
  EXPECT_TRUE(parse_whole32("4294967295").ok());
  EXPECT_FALSE(parse_whole32("4294967296").ok());
  EXPECT_EQ(*parse_signed("-2147483648"), std::numeric_limits<std::int32_t>::min());
  EXPECT_FALSE(parse_signed("2147483648").ok());
}

TEST(ParseTest, ReadsShapes) {
  EXPECT_EQ(*parse_shape("1x3x224x224"), (std::vector<std::size_t>{1, 3, 224, 224}));
  EXPECT_TRUE(parse_shape("")->empty());
  for (const std::string_view text : {"x", "1x", "1xx2", "1,2", "-1x2", "1X2"}) {
    SCOPED_TRACE(text);
    EXPECT_FALSE(parse_shape(text).ok());
  }
}

TEST(ParseTest, PartsAReferenceAtItsLastAt) {
  EXPECT_EQ(*parse_model_at_version("team/net@1.2.3"),
            (std::pair<std::string, registry::ModelVersion>("team/net", {1, 2, 3})));
  EXPECT_FALSE(parse_model_at_version("net").ok());
  EXPECT_FALSE(parse_model_at_version("net@1.2").ok());
}

TEST(ParseTest, PartsAPairAtItsFirstEquals) {
  EXPECT_EQ(*parse_pair("k=a=b"), (std::pair<std::string, std::string>("k", "a=b")));
  EXPECT_EQ(*parse_pair("k="), (std::pair<std::string, std::string>("k", "")));
  EXPECT_FALSE(parse_pair("=v").ok());
  EXPECT_FALSE(parse_pair("k").ok());
}

TEST(ParseTest, KnowsEnumeratorsInAnyCaseAndListsThemWhenOneIsUnknown) {
  EXPECT_EQ(*parse_enumerator<checkpoint::CheckpointType>("incremental"), checkpoint::CheckpointType::Incremental);
  EXPECT_EQ(*parse_enumerator<registry::DeploymentState>("Canary"), registry::DeploymentState::Canary);
  const auto unknown = parse_enumerator<checkpoint::CheckpointType>("partial");
  EXPECT_EQ(std::string(unknown.status().message()), R"("partial" is none of: Full, Incremental, Emergency)");
}

TEST(ParseTest, ReadsComputeCapabilities) {
  EXPECT_EQ(*parse_compute_capability("8.6"), (std::pair<std::uint32_t, std::uint32_t>(8, 6)));
  for (const std::string_view text : {"8", "8.6.1", "8.", "a.b", ""}) EXPECT_FALSE(parse_compute_capability(text).ok());
}

TEST(ParseTest, CsvLinesKeepTheirNumbersAndLeaveCommentsOut) {
  const std::vector<CsvLine> lines = parse_csv("# head\na,b\r\n\n,c");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].number, 2U);
  EXPECT_EQ(lines[0].fields, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(lines[1].number, 4U);
  EXPECT_EQ(lines[1].fields, (std::vector<std::string>{"", "c"}));
}

}  // namespace
}  // namespace tensorforge::cli
