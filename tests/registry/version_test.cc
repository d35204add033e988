#include <random>
#include <unordered_set>

#include <gtest/gtest.h>

#include "registry/registry.h"

namespace tensorforge::registry {
namespace {

constexpr std::uint32_t kMax = 4'294'967'295;

TEST(ParseVersion, AcceptsTheCoreGrammar) {
  const struct {
    const char* text;
    ModelVersion want;
  } cases[] = {
      {"0.0.0", {0, 0, 0}},
      {"1.2.3", {1, 2, 3}},
      {"10.0.100", {10, 0, 100}},
      {"4294967295.4294967295.4294967295", {kMax, kMax, kMax}},
  };
  for (const auto& [text, want] : cases) {
    SCOPED_TRACE(text);
    EXPECT_EQ(parse_version(text), want);
    EXPECT_EQ(format_version(want), text);
  }
}

TEST(ParseVersion, RefusesEverythingElse) {
  const std::string texts[] = {
      "",
      "1",
      "1.2",
      "1.2.",
      ".1.2",
      "1..2",
      "1.2.3.",
      "1.2.3.4",
      "01.2.3",
      "1.02.3",
      "1.2.03",
      "00.0.0",
      "+1.2.3",
      "-1.2.3",
      "1.-2.3",
      "1.2.+3",
      " 1.2.3",
      "1.2.3 ",
      "1. 2.3",
      "1.2.3\n",
      "v1.2.3",
      "1.2.3-rc1",
      "1.2.3+b1",
      "1.2.x",
      "0x1.2.3",
      "1e3.2.3",
      "1,2,3",
      "4294967296.0.0",
      "0.4294967296.0",
      "0.0.4294967296",
      "99999999999999999999.0.0",
      "\xD9\xA1.2.3",
      "...",
      std::string("1.2.3\0", 6),
      std::string("1.2\0.3", 6),
  };
  for (const std::string& text : texts) {
    SCOPED_TRACE(text);
    EXPECT_EQ(parse_version(text), std::nullopt);
  }
}

TEST(ParseVersion, AndFormatAreInversesForAnyVersion) {
  for (std::uint32_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    for (int i = 0; i < 20; ++i) {
      const auto number = [&] { return static_cast<std::uint32_t>(random()) >> (random() % 32); };
      const ModelVersion version{number(), number(), number()};
      ASSERT_EQ(parse_version(format_version(version)), version);
    }
  }
}

TEST(CompareVersions, LooksAtMajorThenMinorThenPatch) {
  const ModelVersion ascending[] = {{0, 0, 0}, {0, 0, 1},  {0, 0, kMax}, {0, 1, 0},    {0, kMax, kMax},   {1, 0, 0},
                                    {1, 2, 3}, {1, 10, 0}, {2, 0, 0},    {kMax, 0, 0}, {kMax, kMax, kMax}};
  for (std::size_t i = 0; i < std::size(ascending); ++i) {
    for (std::size_t j = 0; j < std::size(ascending); ++j) {
      SCOPED_TRACE(format_version(ascending[i]) + " and " + format_version(ascending[j]));
      EXPECT_EQ(compare_versions(ascending[i], ascending[j]), i < j ? -1 : (i > j ? 1 : 0));
    }
  }
}

TEST(ModelVersionHash, IsTheSameForTheSameAndSpreadsNeighbours) {
  std::unordered_set<ModelVersion> versions;
  std::unordered_set<std::size_t> hashes;
  for (std::uint32_t major = 0; major < 20; ++major) {
    for (std::uint32_t minor = 0; minor < 20; ++minor) {
      for (std::uint32_t patch = 0; patch < 20; ++patch) {
        const ModelVersion version{major, minor, patch};
        versions.insert(version);
        hashes.insert(std::hash<ModelVersion>()(version));
      }
    }
  }
  EXPECT_EQ(versions.size(), 8'000u);
  EXPECT_TRUE(versions.contains({19, 0, 7}));
  EXPECT_FALSE(versions.contains({20, 0, 7}));
  EXPECT_EQ(hashes.size(), 8'000u);
}

TEST(DeploymentStateNames, AreTheEnumeratorsOwn) {
  const char* names[] = {"Registered", "Validating", "Staging", "Canary", "Production", "Deprecated", "Archived"};
  for (std::size_t i = 0; i < std::size(names); ++i) {
    const auto state = static_cast<DeploymentState>(i);
    EXPECT_EQ(to_string(state), names[i]);
    EXPECT_EQ(parse_deployment_state(names[i]), state);
  }
  for (const char* name : {"", "canary", "Canary ", "CANARY", "7", "?"}) {
    EXPECT_EQ(parse_deployment_state(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace tensorforge::registry
