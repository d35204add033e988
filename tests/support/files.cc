#include "tests/support/files.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include <fmt/format.h>
#include <unistd.h>

namespace tensorforge::test {
namespace {

namespace fs = std::filesystem;

fs::path place_of(TemporaryDirectory::Medium medium) {
  const bool asked = std::getenv("TMPDIR") != nullptr;
  const bool memory = medium == TemporaryDirectory::Medium::kMemory && access("/dev/shm", W_OK) == 0;
  return memory && !asked ? "/dev/shm" : fs::temp_directory_path();
}

}  // namespace

TemporaryDirectory::TemporaryDirectory(Medium medium) {
  std::string path = place_of(medium) / "tensorforge-test-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp " + path);
  path_ = path;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::map<std::string, std::string> picture(const fs::path& path) {
  std::map<std::string, std::string> seen;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    const auto changed = entry.last_write_time().time_since_epoch().count();
    const std::string content = entry.is_regular_file() ? read_bytes(entry.path()) : "";
    seen[entry.path().string()] = fmt::format("{} {} {}", entry.is_directory(), changed, content);
  }
  return seen;
}

void write_bytes(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string read_bytes(const fs::path& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

void flip_bit(const fs::path& path, std::uintmax_t offset, int bit) {
  std::string bytes = read_bytes(path);
  bytes.at(offset) = static_cast<char>(bytes.at(offset) ^ (1 << bit));
  write_bytes(path, bytes);
}

std::vector<fs::path> files_like(const fs::path& directory, const std::string& part) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (entry.is_regular_file() && (name.starts_with(part) || name.ends_with(part))) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::uintmax_t bytes_without_zeros_behind(const fs::path& path) { return read_bytes(path).find_last_not_of('\0') + 1; }

}  // namespace tensorforge::test
