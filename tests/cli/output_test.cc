#include "tools/cli/output.h"

#include <sstream>

#include <gtest/gtest.h>

#include "tools/cli/model_table.h"

namespace tensorforge::cli {
namespace {

const std::vector<Column> kColumns{{"model_id", "MODEL"}, {"step", "STEP"}, {"tags", "TAGS"}};

std::string list_text(Format format, const std::vector<Json>& rows) {
  std::ostringstream stream;
  Output output(format, stream);
  List list(output, kColumns);
  for (const Json& row : rows) list.add(row);
  list.finish();
  return stream.str();
}

const std::vector<Json> kRows{{{"model_id", "a"}, {"step", 5}, {"tags", Json::object()}},
                              {{"model_id", "long/ä"}, {"step", 1200}, {"tags", {{"k", "v"}}}}};

TEST(OutputTest, AlignsAListForPeople) {
  EXPECT_EQ(list_text(Format::Text, kRows),
            "MODEL   STEP  TAGS\n"
            "a          5  -\n"
            "long/ä  1200  k=v\n");
}

TEST(OutputTest, PrintsAListAsOneDocumentOrAsLines) {
  const std::string first = R"({"model_id":"a","step":5,"tags":{}})";
  const std::string second = R"({"model_id":"long/ä","step":1200,"tags":{"k":"v"}})";
  EXPECT_EQ(list_text(Format::Document, kRows), "[\n  " + first + ",\n  " + second + "\n]\n");
  EXPECT_EQ(list_text(Format::JsonLines, kRows), first + "\n" + second + "\n");
}

TEST(OutputTest, AnEmptyListIsAnEmptyArrayAndNoText) {
  EXPECT_EQ(list_text(Format::Document, {}), "[]\n");
  EXPECT_EQ(list_text(Format::JsonLines, {}), "");
  EXPECT_EQ(list_text(Format::Text, {}), "");
}

TEST(OutputTest, ShowsOneThingAsAlignedKeysAndValues) {
  std::ostringstream stream;
  Output output(Format::Text, stream);
  output.object({{"model_id", "net"}, {"size_bytes", 1536}, {"input_shape", {1, 3}}, {"checksum", ""}});
  EXPECT_EQ(stream.str(),
            "model_id     net\n"
            "size_bytes   1536 (1.5 KiB)\n"
            "input_shape  1x3\n"
            "checksum     -\n");
}

TEST(OutputTest, ShowsAValueByItsKey) {
  const struct {
    std::string_view key;
    Json value;
    std::string_view want;
  } cases[] = {
      {"size_bytes", 1023U, "1023"},
      {"total_memory", 80ULL << 30U, "85899345920 (80.0 GiB)"},
      {"created_at", 1U, "1970-01-01T00:00:00.001Z"},
      {"last_accessed", 0U, "-"},
      {"time", 1772366400123U, "2026-03-01T12:00:00.123Z"},
      {"time", 253402300800000U, "253402300800000 ms"},
      {"step", 1536U, "1536"},
      {"seconds_to_oom", std::numeric_limits<double>::infinity(), "infinite"},
      {"passed", true, "yes"},
      {"errors", {"a", "b"}, "a, b"},
      {"name", "\x1b[2J\n", "\\x1b[2J\\x0a"},
  };
  for (const auto& [key, value, want] : cases) EXPECT_EQ(display(key, value), want) << key;
}

TEST(ModelTableTest, TheBuiltInTableIsWhole) {
  const Result<std::vector<registry::ModelMetadata>> models = parse_model_table(built_in_model_table());
  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 16U);
  EXPECT_EQ(models->front().model_id, "alexnet");
  EXPECT_EQ(models->front().input_shape, (std::vector<std::size_t>{1, 3, 224, 224}));
  EXPECT_EQ(models->front().tags.at("accuracy_top1"), "56.522");
}

TEST(ModelTableTest, AWrongLineIsNamed) {
  const struct {
    std::string csv, want;
  } cases[] = {
      {"# head\nnet,1.0.0,f,1,1,5", "line 2: 6 fields where 7 belong"},
      {"net,1.0,f,1,1,5,50", "line 1: \"1.0\" is no version"},
      {"net,1.0.0,f,1y,1,5,50", "line 1: \"1y\" is no shape"},
      {"net,1.0.0,f,1,1,-5,50", "line 1: \"-5\" is no size"},
      {"net,1.0.0,f,1,1,5,high", "line 1: \"high\" is not a number"},
  };
  for (const auto& [csv, want] : cases) {
    const std::string message(parse_model_table(csv).status().message());
    EXPECT_EQ(message.substr(0, want.size()), want);
  }
}

}  // namespace
}  // namespace tensorforge::cli
