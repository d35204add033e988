// write_golden DIR: writes the golden files that are not there yet. One that is there is the format as it was released,
// and is left alone.
#include <fstream>
#include <iostream>

#include "tests/codec/golden.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: write_golden DIR\n";
    return 2;
  }
  const std::filesystem::path directory = argv[1];
  for (const auto& [path, bytes] : tensorforge::samples::goldens()) {
    const std::filesystem::path file = directory / path;
    if (std::filesystem::exists(file)) continue;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << bytes;
    std::cout << file.string() << '\n';
  }
}
