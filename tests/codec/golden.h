#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "tests/codec/samples.h"

namespace tensorforge::samples {

struct Golden {
  std::filesystem::path path;  ///< below tests/golden
  std::string bytes;
};

/// Every sample, encoded.
inline std::vector<Golden> goldens() {
  std::vector<Golden> out;
  for (const auto& [name, value] : records()) {
    out.push_back({"records/" + name + ".bin", codec::encode_record(value).value()});
  }
  for (const auto& [name, value] : notes()) out.push_back({"notes/" + name + ".bin", codec::encode_note(value)});
  for (const auto& [name, value] : client_messages()) {
    out.push_back({"client/" + name + ".bin", codec::encode_client_frame(value).value()});
  }
  for (const auto& [name, value] : server_messages()) {
    out.push_back({"server/" + name + ".bin", codec::encode_server_frame(value).value()});
  }
  for (const auto& [name, value] : snapshot_parts()) {
    out.push_back({"snapshot_pages/" + name + ".bin", codec::encode_snapshot_part(value).value()});
  }
  return out;
}

}  // namespace tensorforge::samples
