#include "platform/events.h"

#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::events {
namespace {

struct Named {
  std::string id;
  int value{};
  bool operator==(const Named&) const = default;
};

TEST(Deduplicate, KeepsTheFirstOfEachInOrder) {
  const std::vector<Named> events = {{"b", 1}, {"a", 2}, {"b", 3}, {"c", 4}, {"a", 5}};
  EXPECT_THAT(deduplicate(std::span<const Named>(events)),
              testing::ElementsAre(Named{"b", 1}, Named{"a", 2}, Named{"c", 4}));
}

TEST(Deduplicate, OfNothingIsNothing) { EXPECT_THAT(deduplicate(std::span<const Named>()), testing::IsEmpty()); }

}  // namespace
}  // namespace tensorforge::events
