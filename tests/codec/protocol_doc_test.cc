// The exchange that docs/protocol.md shows byte by byte.
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include <gtest/gtest.h>

#include "codec/reply.h"
#include "codec/request.h"

namespace tensorforge {
namespace {

/// The bytes of each block "```hex NAME": lines of an offset, bytes in hexadecimal, `|` and a comment.
std::map<std::string, std::string> hex_blocks() {
  const std::string fence = "```hex ";
  std::map<std::string, std::string> blocks;
  std::string* block = nullptr;
  std::ifstream document(TENSORFORGE_PROTOCOL_DOC);
  EXPECT_TRUE(document) << TENSORFORGE_PROTOCOL_DOC;
  for (std::string line; std::getline(document, line);) {
    if (line.starts_with(fence)) {
      block = &blocks[line.substr(fence.size())];
    } else if (line.starts_with("```")) {
      block = nullptr;
    } else if (block != nullptr) {
      std::istringstream words(line.substr(0, line.find('|')));
      std::string offset;
      words >> offset;
      EXPECT_EQ(std::stoul(offset, nullptr, 16), block->size()) << line;
      for (std::string byte; words >> byte;) block->push_back(static_cast<char>(std::stoul(byte, nullptr, 16)));
    }
  }
  return blocks;
}

template <class Bytes>
Bytes counting_from(std::uint8_t first) {
  Bytes bytes;
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

TEST(ProtocolDocument, ShowsTheBytesThatAreSent) {
  constexpr std::uint32_t kIncarnation = 0x0A1B2C3D;
  const registry::ModelVersion version{1, 0, 0};
  using registry::DeploymentState;

  Hello hello;
  hello.session = counting_from<SessionId>(0x10);
  hello.actor = "ann";
  const Welcome welcome{1, counting_from<LogId>(0x80), kIncarnation, 41, 41, "tensorforged 0.1.0"};
  Request request;
  request.correlation_id = request.command_number = request.answered_below = 1;
  request.body = Command(registry::TransitionState{"bert", version, DeploymentState::Validating});
  Reply reply;
  reply.correlation_id = 1;
  reply.sequence = 42;
  reply.incarnation = kIncarnation;
  reply.result = result::Transitioned{"bert", version, DeploymentState::Registered, DeploymentState::Validating};

  const std::map<std::string, std::string> expected = {
      {"hello", codec::encode_client_frame(hello).value()},
      {"welcome", codec::encode_server_frame(welcome).value()},
      {"request", codec::encode_client_frame(request).value()},
      {"reply", codec::encode_server_frame(reply).value()},
  };
  EXPECT_EQ(hex_blocks(), expected);
}

}  // namespace
}  // namespace tensorforge
