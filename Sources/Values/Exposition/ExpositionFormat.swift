/// A text format of metrics.
package enum ExpositionFormat: Hashable, Sendable, CaseIterable {
    /// The text format of Prometheus, version 0.0.4.
    case prometheus
    /// OpenMetrics, version 1.0.
    case openMetrics

    /// The format that a client asks for by the header `Accept`; Prometheus's unless OpenMetrics is named.
    package init(accepting header: String?) {
        let types = (header ?? "").split(separator: ",").map { type in
            type.prefix { $0 != ";" }.filter { $0 != " " }.lowercased()
        }
        self = types.contains("application/openmetrics-text") ? .openMetrics : .prometheus
    }

    /// The value of the header `Content-Type`.
    package var contentType: String {
        switch self {
        case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
        case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
        }
    }
}
