#pragma once

#include <string>

#include "crashtest/report.h"

namespace tensorforge::crashtest {

/// The report as one page that needs nothing else: no script, no font, no picture from elsewhere. Well-formed as XML
/// too.
std::string to_html(const Report&);

}  // namespace tensorforge::crashtest
