import LinuxSystem
import PageProtocol

/// Memory whose pages are sent to whoever asks for them.
///
/// The service is made for each kind of it, so that none of these costs a call per page.
protocol RequestedMemory: AnyObject, Sendable {
    /// Whether a page is copied before it leaves, since only then ``requireUnchanged()`` can tell whether it is right.
    static var isCopied: Bool { get }

    /// The regions that requests name.
    var table: RegionTable { get }

    /// Answers the requests that have come together.
    func answering<Failure>(_ body: () throws(Failure) -> Void) throws(Failure)
    /// A run, which lies in its region, is about to be answered.
    func admit(_ run: PageRun) throws
    /// Whether a page is not to be sent.
    func isReleased(_ page: Int, region: Int) -> Bool
    /// Whether a page holds only zeros.
    func isZero(_ page: Int, region: Int) -> Bool
    /// Where a page lies.
    func address(of page: Int, region: Int) -> UnsafeMutableRawPointer
    /// Notes that a run is being sent.
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool)
    /// Returns if all that was read of it is right; asked before each send.
    func requireUnchanged() throws
    /// Notes that a request was answered.
    func noteAnswer()
    /// Notes that bytes of pages were sent.
    func noteSent(bytes: Int)
    /// Notes the newest request for a single page, once all that came together were answered.
    func noteNewest(_ run: PageRun)
    /// True once: for the caller that finds every page sent first.
    func completesNow() -> Bool
}
