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

/// From now on SIGTERM and SIGINT only set what stop_asked() tells, until a Server takes them over. SIGPIPE and SIGXFSZ
/// are ignored: what they are about is the error of a write. Once, before there are threads.
void hold_signals();
bool stop_asked();

/// The calling thread, and those that it starts, get out of the way of all others.
void work_in_background();

/// Of memory that this process takes.
std::uint64_t resident_bytes();

/// "0.1.0"
std::string_view version();

}  // namespace tensorforge::server
