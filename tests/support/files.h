#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace tensorforge::test {

/// A directory of its own, gone with the object.
class TemporaryDirectory {
 public:
  /// kMemory where there is some: what survives a killed process does so there as well, and fsync is quick.
  enum class Medium { kDisk, kMemory };
  explicit TemporaryDirectory(Medium medium = Medium::kDisk);
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Every file and directory below `path`: kind, size, time of change, bytes. Nothing may hold a lock there.
std::map<std::string, std::string> picture(const std::filesystem::path& path);

void write_bytes(const std::filesystem::path&, const std::string& bytes);
std::string read_bytes(const std::filesystem::path&);
void flip_bit(const std::filesystem::path&, std::uintmax_t offset, int bit = 0);
/// The files of a kind in a database, by the beginning or the end of their names, in order.
std::vector<std::filesystem::path> files_like(const std::filesystem::path& directory, const std::string& part);
/// Of a log that was not closed: without the zeros that were written ahead of it, and those in which it ends itself.
std::uintmax_t bytes_without_zeros_behind(const std::filesystem::path&);

}  // namespace tensorforge::test
