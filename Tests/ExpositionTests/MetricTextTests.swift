import Exposition
import Telemetry
import Testing

@Suite("Metrics as text")
struct MetricTextTests {
    private func lines(_ set: MetricSet, _ format: ExpositionFormat = .prometheus) -> [String] {
        String(decoding: set.text(as: format), as: UTF8.self).split(separator: "\n").map(String.init)
    }

    @Test("have the help, the type and the samples of each metric, in both formats")
    func formats() {
        var set = MetricSet()
        set.add(.pauses, 3)
        set.add(.residentRatio, 0.25, "destination")
        set.add(.build, 1, "0.1.0", "7", "agent")
        #expect(
            lines(set) == [
                "# HELP pageferry_build_info \(Metric.build.help)", "# TYPE pageferry_build_info gauge",
                #"pageferry_build_info{version="0.1.0",protocol="7",kind="agent"} 1"#,
                "# HELP pageferry_resident_ratio \(Metric.residentRatio.help)",
                "# TYPE pageferry_resident_ratio gauge", #"pageferry_resident_ratio{role="destination"} 0.25"#,
                "# HELP pageferry_pauses_total \(Metric.pauses.help)", "# TYPE pageferry_pauses_total counter",
                "pageferry_pauses_total 3",
            ]
        )
        #expect(
            lines(set, .openMetrics) == [
                "# HELP pageferry_build \(Metric.build.help)", "# TYPE pageferry_build info",
                #"pageferry_build_info{version="0.1.0",protocol="7",kind="agent"} 1"#,
                "# HELP pageferry_resident_ratio \(Metric.residentRatio.help)",
                "# TYPE pageferry_resident_ratio gauge", "# UNIT pageferry_resident_ratio ratio",
                #"pageferry_resident_ratio{role="destination"} 0.25"#,
                "# HELP pageferry_pauses \(Metric.pauses.help)", "# TYPE pageferry_pauses counter",
                "pageferry_pauses_total 3", "# EOF",
            ]
        )
    }

    @Test("keep labels from outside on their line")
    func escapes() {
        var set = MetricSet()
        set.add(.guestMemoryPages, 1, "7", "7", "a\"b\\c\nd", "/s")
        #expect(lines(set).last == #"pageferry_guest_memory_pages{guest="7",pid="7",name="a\"b\\c\nd",socket="/s"} 1"#)
    }

    @Test("have buckets that only grow, up to the number of durations", arguments: [0, 5000] as [UInt64])
    func histogram(more: UInt64) {
        let recorder = LatencyRecorder()
        for nanoseconds in [500, 1500, 3000, 70_000, 2_000_000_000, 200_000_000_000] as [UInt64] {
            recorder.record(nanoseconds: nanoseconds)
        }
        let counts = DurationCounts([recorder], adding: more)
        #expect(counts.cumulative == counts.cumulative.sorted() && counts.cumulative.last == 6)
        var set = MetricSet()
        set.add(.stall, counts)
        let lines = lines(set)
        #expect(lines.contains(#"pageferry_stall_seconds_bucket{le="2e-06"} \#(more == 0 ? 2 : 0)"#))
        #expect(lines.contains(#"pageferry_stall_seconds_bucket{le="67.108864"} 5"#))
        #expect(lines.contains(#"pageferry_stall_seconds_bucket{le="+Inf"} 6"#))
        #expect(lines.contains("pageferry_stall_seconds_count 6"))
        // A duration is recorded to within 0.8 %.
        #expect(abs(counts.seconds - 202.000075 - Double(6 * more) / 1e9) < 2)
    }

    @Test("show the quantiles of a summary, and numbers that are not finite")
    func summary() {
        var set = MetricSet()
        let labels = ["7", "7", "vm", "/s"]
        set.add(.guestService, quantiles: [(0.5, 0.0001), (0.99, 0.25)], count: 4, seconds: 0.5, labels)
        set.add(.guestFillRate, .infinity, labels)
        let lines = lines(set)
        let own = #"guest="7",pid="7",name="vm",socket="/s""#
        #expect(lines.contains("pageferry_guest_service_seconds{\(own),quantile=\"0.5\"} 0.0001"))
        #expect(lines.contains("pageferry_guest_service_seconds{\(own),quantile=\"0.99\"} 0.25"))
        #expect(lines.contains("pageferry_guest_service_seconds_sum{\(own)} 0.5"))
        #expect(lines.contains("pageferry_guest_service_seconds_count{\(own)} 4"))
        #expect(lines.contains("pageferry_guest_fill_bytes_per_second{\(own)} +Inf"))
    }

    @Test(
        "come in the format that a client asks for",
        arguments: [
            (nil, .prometheus), ("*/*", .prometheus), ("text/plain;version=0.0.4", .prometheus),
            ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", .openMetrics),
            ("text/html, application/openmetrics-text ; version=1.0.0", .openMetrics),
        ] as [(String?, ExpositionFormat)]
    )
    func negotiation(header: String?, format: ExpositionFormat) {
        #expect(ExpositionFormat(accepting: header) == format)
    }

    @Test("show single guests up to a bound, and say how many they leave out")
    func guests() {
        var guests: [LiveGuest] = []
        for pid in 1...5 as ClosedRange<Int32> {
            let state = pid == 5 ? "held" : "linked"
            guests.append(
                LiveGuest(id: .process(pid), name: "vm", socket: "/s", state: state, server: "tcp:h:1", policy: "hold")
            )
        }
        guests[0].policyCountdown = 7
        var set = MetricSet()
        set.add(guests: guests, atMost: 3, adopted: 2)
        let lines = lines(set)
        #expect(lines.contains(#"pageferry_guests{state="linked"} 4"#))
        #expect(lines.contains(#"pageferry_guests{state="held"} 1"#))
        #expect(lines.contains("pageferry_guests_omitted 2"))
        #expect(lines.contains("pageferry_adopted_guests_total 2"))
        #expect(lines.filter { $0.hasPrefix("pageferry_guest_memory_pages{") }.count == 3)
        #expect(lines.filter { $0.hasPrefix("pageferry_guest_policy_countdown_seconds{") }.count == 1)
    }

    @Test("show each sample once, also of guests of other PID namespaces, whose process ids are all 0")
    func outside() {
        let guests = [.outside(1), .outside(2)].map { (id: LiveGuest.ID) in
            LiveGuest(id: id, name: "vm", socket: "/s", state: "linked", server: "tcp:h:1", policy: "hold")
        }
        var set = MetricSet()
        set.add(guests: guests, adopted: 0)
        let samples = lines(set).filter { !$0.hasPrefix("#") }.map { $0.prefix { $0 != " " } }
        #expect(Set(samples).count == samples.count)
        #expect(samples.contains(#"pageferry_guest_memory_pages{guest="outside-2",pid="0",name="vm",socket="/s"}"#))
    }

    @Test("keep a ratio to 1 and labels short, whatever a worker or a platform writes")
    func bounds() {
        let long = String(repeating: "x", count: 1000)
        var guest = LiveGuest(id: .process(7), name: long, socket: long, state: "linked", server: long, policy: "hold")
        (guest.total, guest.resident) = (4, 5)
        var set = MetricSet()
        set.add(guests: [guest], adopted: 0)
        let lines = lines(set)
        #expect(lines.contains { $0.hasPrefix("pageferry_guest_resident_ratio{") && $0.hasSuffix("} 1") })
        #expect(lines.allSatisfy { $0.count < 800 })
    }

    @Test("show 1000 guests within 50 ms", arguments: ExpositionFormat.allCases)
    func manyGuests(format: ExpositionFormat) throws {
        let guests = (1...1000 as ClosedRange<Int32>).map { pid in
            let socket = "/srv/jailer/firecracker/vm\(pid)/root/run/uffd.sock"
            var guest = LiveGuest(
                id: .process(pid),
                name: "vm\(pid)",
                socket: socket,
                state: "linked",
                server: "tcp:10.0.0.1:7200",
                policy: "hold"
            )
            (guest.total, guest.resident, guest.p50, guest.served) = (262_144, 1234, 87.5, 1234)
            (guest.policyCountdown, guest.fill) = (12.5, 1 << 20)
            return guest
        }
        // The shortest of some times, since other tests run beside this one.
        let time = (0..<10).map { _ in
            ContinuousClock().measure {
                var set = MetricSet()
                set.add(guests: guests, adopted: 0)
                #expect(set.text(as: format).count > 1 << 20)
            }
        }
        #expect(try #require(time.min()) < .milliseconds(50))
    }

    @Test("measure a rate over at least a second")
    func rates() {
        var meter = RateMeter<String>()
        #expect(meter.rate(of: "a", count: 100, at: 0) == 0)
        #expect(meter.rate(of: "a", count: 200, at: 500_000_000) == 0)
        #expect(meter.rate(of: "a", count: 300, at: 2_000_000_000) == 100)
        #expect(meter.rate(of: "a", count: 900, at: 2_500_000_000) == 100)
        // A new migration counts from 0.
        #expect(meter.rate(of: "a", count: 5, at: 4_000_000_000) == 0)
    }
}
