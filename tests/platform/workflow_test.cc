#include "platform/workflow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::workflow {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

enum class Light { Red, Green, Yellow };
const TransitionTable<Light> kTrafficLight = {
    {Light::Red, Light::Green}, {Light::Green, Light::Yellow}, {Light::Green, Light::Red}};

TEST(TransitionTable, AllowsWhatIsListedAndNothingElse) {
  EXPECT_TRUE(kTrafficLight.can_transition(Light::Red, Light::Green));
  EXPECT_TRUE(kTrafficLight.can_transition(Light::Green, Light::Red));
  EXPECT_FALSE(kTrafficLight.can_transition(Light::Red, Light::Red));
  EXPECT_FALSE(kTrafficLight.can_transition(Light::Yellow, Light::Green));
}

TEST(TransitionTable, ListsWhatIsAllowedInTheOrderGiven) {
  EXPECT_THAT(kTrafficLight.allowed_from(Light::Green), ElementsAre(Light::Yellow, Light::Red));
  EXPECT_THAT(kTrafficLight.allowed_from(Light::Yellow), IsEmpty());
}

const Edges kEdges = {{"a", {"b", "c"}}, {"b", {"d"}}, {"c", {"d", "e"}}, {"d", {"a", "e"}}, {"loop", {"loop"}}};

TEST(ShortestPath, HasBothEndsAndTakesTheFewestEdges) {
  EXPECT_THAT(shortest_path(kEdges, "a", "e"), ElementsAre("a", "c", "e"));
  EXPECT_THAT(shortest_path(kEdges, "d", "b"), ElementsAre("d", "a", "b"));
}

TEST(ShortestPath, OfEqualWaysTakesTheEdgeListedFirst) {
  EXPECT_THAT(shortest_path(kEdges, "a", "d"), ElementsAre("a", "b", "d"));
}

TEST(ShortestPath, FromANodeToItselfIsThatNode) {
  EXPECT_THAT(shortest_path(kEdges, "a", "a"), ElementsAre("a"));
  EXPECT_THAT(shortest_path(kEdges, "loop", "loop"), ElementsAre("loop"));
}

TEST(ShortestPath, IsEmptyWhereThereIsNoWayAndEndsInACycle) {
  EXPECT_THAT(shortest_path(kEdges, "e", "a"), IsEmpty());
  EXPECT_THAT(shortest_path(kEdges, "a", "loop"), IsEmpty());
  EXPECT_THAT(shortest_path(kEdges, "loop", "a"), IsEmpty());
  EXPECT_THAT(shortest_path(kEdges, "nowhere", "a"), IsEmpty());
  EXPECT_THAT(shortest_path({}, "a", "b"), IsEmpty());
}

TEST(ShortestPath, FollowsALongChainWithoutRecursion) {
  Edges chain;
  for (int i = 0; i < 20000; ++i) chain[std::to_string(i)] = {std::to_string(i + 1)};
  EXPECT_EQ(shortest_path(chain, "0", "20000").size(), 20001u);
}

}  // namespace
}  // namespace tensorforge::workflow
