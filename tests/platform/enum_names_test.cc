#include "platform/enum_names.h"

#include <gtest/gtest.h>

namespace tensorforge {
namespace {

enum class Fruit { Apple, Pear };
constexpr auto kNames = enum_names<Fruit>("Apple", "Pear");
static_assert(kNames.to_string(Fruit::Pear) == "Pear");
static_assert(kNames.parse("Apple") == Fruit::Apple);

TEST(EnumNames, NamesNoEnumeratorForAnotherNumber) { EXPECT_EQ(kNames.to_string(static_cast<Fruit>(2)), "?"); }

TEST(EnumNames, ParsesExactNamesOnly) {
  for (const char* name : {"", "apple", "Apple ", "?", "Plum"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(kNames.parse(name), std::nullopt);
  }
}

}  // namespace
}  // namespace tensorforge
