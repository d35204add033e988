#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "registry/registry.h"

namespace tensorforge::registry {
namespace {

using enum DeploymentState;

ModelMetadata model(std::string id, ModelVersion version) {
  ModelMetadata made;
  made.model_id = std::move(id);
  made.version = version;
  made.registered_at = 5;
  return made;
}

class ModelRegistryTest : public testing::Test {
 protected:
  ModelRegistry registry_;
};

TEST_F(ModelRegistryTest, StartsEmpty) {
  EXPECT_EQ(registry_.model_count(), 0u);
  EXPECT_EQ(registry_.version_count(), 0u);
  EXPECT_EQ(registry_.get("resnet", {1, 0, 0}), std::nullopt);
  EXPECT_EQ(registry_.get_latest("resnet"), std::nullopt);
  EXPECT_EQ(registry_.get_validation("resnet", {1, 0, 0}), std::nullopt);
  EXPECT_THAT(registry_.list_versions("resnet"), testing::IsEmpty());
  EXPECT_THAT(registry_.find_by_state(Registered), testing::IsEmpty());
}

TEST_F(ModelRegistryTest, GivesBackAllThatWasRegistered) {
  const ModelMetadata full{"team/resnet", "ResNet",     {1, 2, 0}, "onnx",     {1, 3, 224, 224},      {1, 1000},
                           102'400,       "sha256:abc", 1'700'000, Registered, {{"recall@10", "0.9"}}};
  ASSERT_TRUE(registry_.register_model(full).ok());
  EXPECT_EQ(registry_.get("team/resnet", {1, 2, 0}), full);
  EXPECT_EQ(registry_.get("team/resnet", {1, 2, 1}), std::nullopt);
  EXPECT_EQ(registry_.get("team", {1, 2, 0}), std::nullopt);
}

TEST_F(ModelRegistryTest, RefusesTheSameVersionTwiceAndKeepsTheFirst) {
  ASSERT_TRUE(registry_.register_model(model("resnet", {1, 0, 0})).ok());
  ModelMetadata again = model("resnet", {1, 0, 0});
  again.name = "again";
  EXPECT_EQ(registry_.register_model(again).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry_.get("resnet", {1, 0, 0})->name, "");
}

TEST_F(ModelRegistryTest, KeepsTheVersionsAtBothEndsOfTheRange) {
  constexpr std::uint32_t kMax = 4'294'967'295;
  ASSERT_TRUE(registry_.register_model(model("resnet", {kMax, kMax, kMax})).ok());
  ASSERT_TRUE(registry_.register_model(model("resnet", {0, 0, 0})).ok());
  EXPECT_THAT(registry_.list_versions("resnet"),
              testing::ElementsAre(ModelVersion{0, 0, 0}, ModelVersion{kMax, kMax, kMax}));
}

TEST_F(ModelRegistryTest, LatestIsTheHighestVersionNotTheLastRegistered) {
  for (const ModelVersion version : {ModelVersion{1, 9, 0}, {1, 10, 0}, {1, 2, 30}}) {
    ASSERT_TRUE(registry_.register_model(model("resnet", version)).ok());
  }
  EXPECT_EQ(registry_.get_latest("resnet")->version, (ModelVersion{1, 10, 0}));
  EXPECT_THAT(registry_.list_versions("resnet"),
              testing::ElementsAre(ModelVersion{1, 2, 30}, ModelVersion{1, 9, 0}, ModelVersion{1, 10, 0}));
}

TEST_F(ModelRegistryTest, CountsModelsAndVersions) {
  ASSERT_TRUE(registry_.register_model(model("resnet", {1, 0, 0})).ok());
  ASSERT_TRUE(registry_.register_model(model("resnet", {2, 0, 0})).ok());
  ASSERT_TRUE(registry_.register_model(model("bert", {1, 0, 0})).ok());
  EXPECT_EQ(registry_.model_count(), 2u);
  EXPECT_EQ(registry_.version_count(), 3u);
}

TEST_F(ModelRegistryTest, WalksTheWholeLifecycle) {
  ASSERT_TRUE(registry_.register_model(model("resnet", {1, 0, 0})).ok());
  for (const DeploymentState to : {Validating, Registered, Validating, Staging, Registered, Validating, Staging, Canary,
                                   Staging, Canary, Production, Deprecated, Archived}) {
    ASSERT_TRUE(registry_.transition_state("resnet", {1, 0, 0}, to).ok()) << to_string(to);
    ASSERT_EQ(registry_.get("resnet", {1, 0, 0})->state, to);
  }
}

TEST_F(ModelRegistryTest, RefusesAnIllegalTransitionAndStaysWhereItWas) {
  ASSERT_TRUE(registry_.register_model(model("resnet", {1, 0, 0})).ok());
  EXPECT_EQ(registry_.transition_state("resnet", {1, 0, 0}, Production).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_.transition_state("bert", {1, 0, 0}, Validating).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry_.get("resnet", {1, 0, 0})->state, Registered);
}

TEST_F(ModelRegistryTest, FindsByStateInOrder) {
  for (const char* id : {"c", "a", "b"}) ASSERT_TRUE(registry_.register_model(model(id, {1, 0, 0})).ok());
  ASSERT_TRUE(registry_.register_model(model("a", {0, 9, 0})).ok());
  ASSERT_TRUE(registry_.transition_state("b", {1, 0, 0}, Validating).ok());
  std::vector<std::string> found;
  for (const ModelMetadata& one : registry_.find_by_state(Registered)) {
    found.push_back(one.model_id + " " + format_version(one.version));
  }
  EXPECT_THAT(found, testing::ElementsAre("a 0.9.0", "a 1.0.0", "c 1.0.0"));
  EXPECT_EQ(registry_.find_by_state(Validating).size(), 1u);
  EXPECT_THAT(registry_.find_by_state(Production), testing::IsEmpty());
}

TEST_F(ModelRegistryTest, KeepsTheNewestValidation) {
  ASSERT_TRUE(registry_.register_model(model("resnet", {1, 0, 0})).ok());
  const ValidationResult first{"resnet", {1, 0, 0}, false, 1, 2, 0.3, {"slow"}};
  const ValidationResult second{"resnet", {1, 0, 0}, true, 1, 1, 0.9, {}};
  ASSERT_TRUE(registry_.record_validation(first).ok());
  EXPECT_EQ(registry_.get_validation("resnet", {1, 0, 0}), first);
  ASSERT_TRUE(registry_.record_validation(second).ok());
  EXPECT_EQ(registry_.get_validation("resnet", {1, 0, 0}), second);
  EXPECT_EQ(registry_.get_validation("resnet", {1, 0, 1}), std::nullopt);
}

TEST_F(ModelRegistryTest, RefusesTheValidationOfAnUnknownVersion) {
  EXPECT_EQ(registry_.record_validation({"resnet", {1, 0, 0}, true, 1, 1, 0.9, {}}).code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ModelRegistryTest, ReturnsCopies) {
  ASSERT_TRUE(registry_.register_model(model("resnet", {1, 0, 0})).ok());
  registry_.get("resnet", {1, 0, 0})->name = "changed";
  registry_.find_by_state(Registered)[0].name = "changed";
  EXPECT_EQ(registry_.get("resnet", {1, 0, 0})->name, "");
}

}  // namespace
}  // namespace tensorforge::registry
