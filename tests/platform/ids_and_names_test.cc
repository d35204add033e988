#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "platform/entity_id.h"
#include "platform/names.h"

namespace tensorforge {
namespace {

using names::check_id;
using names::check_key;
using names::check_text;
using names::is_utf8;

TEST(CheckId, AcceptsWhatTheRulesAllow) {
  const std::string longest(255, 'x');
  for (const std::string& id :
       {std::string("a"), std::string("team/vision/resnet50"), std::string("modèle-名前-🚀"), std::string("two words"),
        std::string("a\"b\\c"), longest, std::string("no\u00A0break"), std::string("\u00A0")}) {
    SCOPED_TRACE(id);
    EXPECT_TRUE(check_id("id", id).ok()) << check_id("id", id);
  }
}

TEST(CheckId, RefusesEachBrokenRuleAndNamesIt) {
  const struct {
    const char* name;
    std::string id;
    const char* want;
  } cases[] = {
      {"empty", "", "is empty"},
      {"256 bytes", std::string(256, 'x'), "has 256 bytes; the limit is 255"},
      {"127 characters and one, 256 bytes", std::string(254, 'x') + "é", "the limit is 255"},
      {"not UTF-8", "a\xFF", "not valid UTF-8"},
      {"overlong", "\xC0\xAF", "not valid UTF-8"},
      {"surrogate", "\xED\xA0\x80", "not valid UTF-8"},
      {"over U+10FFFF", "\xF4\x90\x80\x80", "not valid UTF-8"},
      {"cut", "\xE2\x82", "not valid UTF-8"},
      {"NUL", std::string("a\0b", 3), "control character"},
      {"U+001F", "a\x1F", "control character"},
      {"DEL", "a\x7F", "control character"},
      {"U+0080", "a\xC2\x80", "control character"},
      {"U+009F", "a\xC2\x9F", "control character"},
      {"newline", "a\nb", "control character"},
      {"at sign", "a@b", "'@'"},
      {"space in front", " a", "space at an end"},
      {"space behind", "a ", "space at an end"},
  };
  for (const auto& [name, id, want] : cases) {
    SCOPED_TRACE(name);
    const absl::Status status = check_id("model id", id);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find(want), std::string::npos) << status;
    EXPECT_EQ(std::string(status.message()).find("model id"), 0u) << status;
  }
}

TEST(CheckId, LooksAtEveryByte) {
  for (std::size_t length = 1; length <= 26; ++length) {
    for (std::size_t at = 0; at < length; ++at) {
      const bool at_an_end = at == 0 || at + 1 == length;
      for (int byte = 0; byte < 256; ++byte) {
        SCOPED_TRACE(testing::Message() << "byte " << at << " of " << length << " is " << byte);
        std::string id(length, 'x');
        id[at] = static_cast<char>(byte);
        // What is less, and 0x7F, is a control character; what is more is not UTF-8 by itself.
        const bool is_fine = byte >= 0x20 && byte <= 0x7E && !(at_an_end && byte == ' ');
        EXPECT_EQ(check_key("key", id).ok(), is_fine);
        EXPECT_EQ(check_id("id", id).ok(), is_fine && byte != '@');
      }
    }
  }
}

TEST(IsUtf8, LooksAtEveryByte) {
  for (std::size_t length = 1; length <= 40; ++length) {
    for (std::size_t at = 0; at < length; ++at) {
      SCOPED_TRACE(testing::Message() << "byte " << at << " of " << length);
      std::string text(length, 'x');
      EXPECT_TRUE(is_utf8(text));
      text[at] = '\xFF';
      EXPECT_FALSE(is_utf8(text));
      EXPECT_TRUE(is_utf8(text.replace(at, 1, "é")));
    }
  }
}

TEST(CheckKey, IsAnIdThatMayHaveAnAtSign) {
  EXPECT_TRUE(check_key("tag key", "recall@10").ok());
  EXPECT_FALSE(check_key("tag key", "").ok());
  EXPECT_FALSE(check_key("tag key", " a").ok());
  EXPECT_FALSE(check_key("tag key", std::string(256, 'x')).ok());
}

TEST(CheckText, LimitsBytesAndAsksForUtf8) {
  EXPECT_TRUE(check_text("path", "", 3).ok());
  EXPECT_TRUE(check_text("path", "abc", 3).ok());
  EXPECT_TRUE(check_text("path", "\n@ ", 3).ok());
  EXPECT_EQ(check_text("path", "abcd", 3).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(check_text("path", "\xFF", 3).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Quoted, EscapesWhatCouldFoolAReader) {
  EXPECT_EQ(names::quoted("resnet"), "\"resnet\"");
  EXPECT_EQ(names::quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
  EXPECT_EQ(names::quoted("a\nb\x1B[31m"), "\"a\\u000ab\\u001b[31m\"");
  EXPECT_EQ(names::quoted("a\xFFz"), "\"a\\xffz\"");
  EXPECT_EQ(names::quoted("é"), "\"é\"");
  EXPECT_EQ(names::quoted(std::string(300, 'x')), '"' + std::string(255, 'x') + "…\"");
}

TEST(EntityIdText, IsTheExactInverseOfItsParse) {
  const EntityId ids[] = {{0, 0}, {0x0a1b2c3d, 17}, {0xFFFFFFFF, std::numeric_limits<std::uint64_t>::max()}};
  EXPECT_EQ(format_entity_id("b", ids[1]), "b-0a1b2c3d-17");
  for (const EntityId& id : ids) EXPECT_EQ(parse_entity_id("ck", format_entity_id("ck", id)), id);
}

TEST(EntityIdText, ParsesNothingElse) {
  for (const char* text :
       {"", "b", "b-", "b-0a1b2c3d", "b-0a1b2c3d-", "b-0A1B2C3D-17", "b-0a1b2c3d-017", "b-a1b2c3d-17", "c-0a1b2c3d-17",
        "b-0a1b2c3d-17 ", "b-0a1b2c3d--17", "b-0a1b2c3d-+17", "b+0a1b2c3d-17", "b-0a1b2c3d-18446744073709551616",
        "b-0x1b2c3d-17", "bb-0a1b2c3d-17", "b-0a1b2c3g-17"}) {
    SCOPED_TRACE(text);
    EXPECT_EQ(parse_entity_id("b", text), std::nullopt);
  }
}

}  // namespace
}  // namespace tensorforge
