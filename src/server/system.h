#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "service/config.h"

namespace tensorforge::server {

/// CLOCK_REALTIME and CLOCK_BOOTTIME. Threads: any.
service::Now read_clocks();

/// Fills `bytes` from the operating system; ends the process where that gives none, since ids would repeat.
void fill_random(std::span<std::uint8_t> bytes);

/// "0.1.0"
std::string_view version();

}  // namespace tensorforge::server
