#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace tensorforge::test {

/// A program that ended.
struct Ran {
  int exit_code{};  ///< minus the signal's number, if one ended it
  std::string out, err;
};

/// Runs `command` (a path and its arguments) to its end, with `input` as its standard input.
Ran run_program(const std::vector<std::string>& command, const std::string& input = "");

}  // namespace tensorforge::test
